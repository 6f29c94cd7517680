"""Intervals of the real line: ranges of activations and domains of costs."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from workers.mathematics.arrays import Array


@dataclass(frozen=True)
class Interval:
    """The numbers between low and high; the ends belong to it only where that is said."""

    low: float = -math.inf
    high: float = math.inf
    low_included: bool = False
    high_included: bool = False

    def within(self, other: "Interval") -> bool:
        """Whether every number of this interval lies in the other."""
        low_fits = other.low < self.low or (other.low == self.low and other.low_included >= self.low_included)
        high_fits = self.high < other.high or (self.high == other.high and other.high_included >= self.high_included)
        return low_fits and high_fits


OPEN_UNIT = Interval(0, 1)
POSITIVE = Interval(0, math.inf)
REAL = Interval()


def clip_inside(a: Array, domain: Interval, dtype: np.dtype[np.floating[Any]]) -> None:
    """Move numbers that were rounded to an excluded end, 0 or 1, back inside; in place.

    Below, the limit is √tiny (1e-19 in float32, 1e-154 in float64): far below any activity that matters, and yet 1/a
    times a target is finite. Above, it is the largest number less than 1. All others stay as they are.

    Args:
        a: The numbers.
        domain: Where they should lie.
        dtype: What they were rounded to, and will be computed with.
    """
    if domain.low == 0:
        np.maximum(a, math.sqrt(np.finfo(dtype).tiny), out=a)
    if domain.high == 1:
        np.minimum(a, 1 - float(np.finfo(dtype).epsneg), out=a)
