"""The application: settings, tables, state machine, tasks, sweep and command line."""
