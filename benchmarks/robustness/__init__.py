"""Faults on purpose: what is left of a job when what it needs is killed, stopped, filled or damaged."""
