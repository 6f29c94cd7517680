"""Exponential back-off: how long to wait before trying again."""

from typing import Final

__all__ = ["back_off_seconds"]

# 2^63 seconds are longer than any pause; far more doublings would overflow a float.
_MOST_DOUBLINGS: Final = 63


def back_off_seconds(failures: int, first: float, longest: float) -> float:
    """Returns the pause after a number of failures in a row: `first`, doubled with every further failure.

    Args:
        failures: Failures in a row, from 1.
        first: Pause after the first failure, in seconds.
        longest: Longest pause, in seconds.
    """
    return min(first * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), longest)
