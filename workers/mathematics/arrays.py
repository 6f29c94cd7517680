"""Arrays that the formulas share, sums in float64, and the intervals that activations and costs are defined on."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.floating[Any]]


class Scratch(NamedTuple):
    """Buffers for intermediate results of one layer, so that formulas need not allocate; hold nothing between calls.

    Formulas spread a row over a matrix by ``copyto`` and only then compute: a ufunc that broadcasts allocates a buffer.
    """

    d: Array  # (nodes, samples)
    spare: Array  # (nodes, samples)
    row: Array  # (1, samples)


def widened(values: Array, wide: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns the values in float64: a copy in the buffer given, or the values themselves if they are float64 already.

    Args:
        values: Of any shape, contiguous.
        wide: Buffer for at least ``values.size`` numbers.
    """
    if values.dtype == np.float64:
        return values.astype(np.float64, copy=False)
    # A copy of our own: sum(dtype=float64) would allocate one at every call.
    same = wide[: values.size].reshape(values.shape)
    np.copyto(same, values)
    return same


def total(values: Array, wide: npt.NDArray[np.float64]) -> float:
    """Returns the sum of all values, added in float64; arguments as for `widened`."""
    return float(widened(values, wide).sum())


@dataclass(frozen=True)
class Interval:
    """The numbers between low and high; the ends belong to it only where that is said."""

    low: float = -math.inf
    high: float = math.inf
    low_included: bool = False
    high_included: bool = False

    def within(self, other: "Interval") -> bool:
        """Returns whether every number of this interval lies in the other."""
        low_fits = other.low < self.low or (other.low == self.low and other.low_included >= self.low_included)
        high_fits = self.high < other.high or (self.high == other.high and other.high_included >= self.high_included)
        return low_fits and high_fits


OPEN_UNIT = Interval(0, 1)
POSITIVE = Interval(0, math.inf)
REAL = Interval()


def clip_inside(a: Array, domain: Interval, dtype: np.dtype[np.floating[Any]]) -> None:
    """Moves numbers that were rounded to an excluded end, 0 or 1, back inside; in place.

    Below, the limit is √tiny (1e-19 in float32, 1e-154 in float64): far below any activity that matters, and yet 1/a
    times a target is finite. Above, it is the largest number less than 1. All others stay as they are.

    Args:
        a: The numbers.
        domain: Interval that they should lie in.
        dtype: Type that they were rounded to, and are computed with.
    """
    if domain.low == 0:
        np.maximum(a, math.sqrt(np.finfo(dtype).tiny), out=a)
    if domain.high == 1:
        np.minimum(a, 1 - float(np.finfo(dtype).epsneg), out=a)
