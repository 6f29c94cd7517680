"""Array types of the formulas, sums in float64, and the intervals on which activations and costs are defined."""

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.floating[Any]]

_TYPES = (np.float32, np.float64)


class Scratch(NamedTuple):
    """Buffers for intermediate results of one layer, so that formulas need not allocate; undefined between calls.

    Formulas copy a row over a matrix with ``copyto`` before they compute, because a ufunc that broadcasts allocates.
    """

    d: Array  # (nodes, samples)
    spare: Array  # (nodes, samples)
    row: Array  # (1, samples)


# Numbers by type, as operands of the formulas of most layers: a ufunc takes 1 µs longer for a number of Python.
ZERO: MappingProxyType[np.dtype[Any], Array] = MappingProxyType({np.dtype(t): np.zeros((), t) for t in _TYPES})
ONE: MappingProxyType[np.dtype[Any], Array] = MappingProxyType({np.dtype(t): np.ones((), t) for t in _TYPES})


def widened(values: Array, wide: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns the values in float64: a copy in the given buffer, or the values themselves if they are float64 already.

    Args:
        values: Contiguous array of any shape.
        wide: Buffer for at least ``values.size`` numbers.
    """
    if values.dtype == np.float64:
        return values.astype(np.float64, copy=False)
    # An explicit copy, because sum(dtype=float64) would allocate one at every call.
    same = wide[: values.size].reshape(values.shape)
    np.copyto(same, values)
    return same


def total(values: Array, wide: npt.NDArray[np.float64]) -> float:
    """Returns the sum of all values, added in float64; arguments as for `widened`."""
    return float(np.add.reduce(widened(values, wide), axis=None))


@dataclass(frozen=True)
class Interval:
    """Interval from low to high; an end belongs to it only if it is marked as included."""

    low: float = -math.inf
    high: float = math.inf
    low_included: bool = False
    high_included: bool = False

    def within(self, other: "Interval") -> bool:
        """Returns True if every number of this interval lies in the other."""
        low_fits = other.low < self.low or (other.low == self.low and other.low_included >= self.low_included)
        high_fits = self.high < other.high or (self.high == other.high and other.high_included >= self.high_included)
        return low_fits and high_fits


OPEN_UNIT = Interval(0, 1)
POSITIVE = Interval(0, math.inf)
REAL = Interval()


def clip_inside(a: Array, domain: Interval, dtype: np.dtype[np.floating[Any]]) -> None:
    """Moves numbers that were rounded to an excluded end, 0 or 1, back inside; in place.

    The lower limit is √tiny (1e-19 in float32, 1e-154 in float64): far below any relevant activity, and 1/a times a
    target is still finite. The upper limit is the largest number less than 1. Other numbers do not change.

    Args:
        a: Array of any shape.
        domain: Interval that the numbers should lie in.
        dtype: Type that they were rounded to and are computed with.
    """
    if domain.low == 0:
        np.maximum(a, math.sqrt(np.finfo(dtype).tiny), out=a)
    if domain.high == 1:
        np.minimum(a, 1 - float(np.finfo(dtype).epsneg), out=a)
