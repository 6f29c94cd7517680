"""Fault harness: what is left of a job when what it needs is killed, stopped, filled, cut off or damaged."""

__all__ = ["PROMPT", "HarnessError"]

PROMPT = ("--watch-interval", "0.05")
"""Options of a service whose watchers hear of an event soon: whoever injects a fault waits for the right moment."""


class HarnessError(Exception):
    """A test cannot be made as it should be; says why as a sentence."""
