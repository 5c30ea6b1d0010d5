"""Hostile bytes: `make fuzz` (`python -m tests.fuzz --help`)."""
