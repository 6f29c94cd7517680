"""Fault harness: what is left of a job when what it needs is killed, stopped, filled, cut off or damaged."""

__all__ = ["HarnessError"]


class HarnessError(Exception):
    """A test cannot be made as it should be; says why as a sentence."""
