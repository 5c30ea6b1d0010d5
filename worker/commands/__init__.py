"""The command line: a module for each group of commands. What they do lies in the packages they call."""
