"""Arrays that the formulas share, and sums in float64."""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.floating[Any]]


class Scratch(NamedTuple):
    """Room for intermediate results of one layer, so that formulas need not allocate; holds nothing between calls.

    Formulas spread a row over a matrix by ``copyto`` and only then compute: a ufunc that broadcasts allocates a buffer.
    """

    d: Array  # (nodes, samples)
    spare: Array  # (nodes, samples)
    row: Array  # (1, samples)


def widened(values: Array, wide: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The values in float64: copied into the room given, or themselves if they are float64 already.

    Args:
        values: Of any shape, contiguous.
        wide: Room for at least ``values.size`` numbers.
    """
    if values.dtype == np.float64:
        return values.astype(np.float64, copy=False)
    # A copy of our own: sum(dtype=float64) would allocate one at every call.
    same = wide[: values.size].reshape(values.shape)
    np.copyto(same, values)
    return same


def total(values: Array, wide: npt.NDArray[np.float64]) -> float:
    """The sum of all values, added in float64; arguments as above."""
    return float(widened(values, wide).sum())
