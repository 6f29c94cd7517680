"""Daemon: settings, command line, start and stop."""
