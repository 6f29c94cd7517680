"""Exponential back-off: how long to wait before trying again."""

from typing import Final

__all__ = ["back_off_seconds"]

# More of them than any pause needs, and fewer than a float can take.
_MOST_DOUBLINGS: Final = 63


def back_off_seconds(failures: int, first: float, longest: float) -> float:
    """Returns the pause after a number of failures in a row: `first`, doubled with every further failure.

    Args:
        failures: Failures in a row, from 1.
        first: Pause after the first failure, in seconds.
        longest: Longest pause, in seconds.
    """
    return min(first * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), longest)
