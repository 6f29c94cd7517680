"""Norms of gradients and weights by layer, from sums of squares whose order depends on nothing but the vector."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["LayerSquares", "Norms", "gradient_norms", "many_gradient_norms", "squares_by_layer", "sum_of_squares"]

LayerSquares = tuple[int, float]  # number of a layer, and the sum of the squares of a piece of it

# Lanes of a sum of squares; the same in workers/native/update.h.
_LANES = 8


class Norms(NamedTuple):
    """Euclidean norms of one update."""

    gradient: float
    """Norm of the whole mean gradient."""
    gradients: list[float]
    """Norms of the mean gradient by layer: of W(N) with b(N), at index N."""
    weights: Sequence[float] = ()
    """Norms of the weights after the update by layer; empty if they were not measured."""


def sum_of_squares(vector: NDArray[np.floating]) -> float:
    """Returns the sum of the squares in float64: element i is added to lane i % 8, and the lanes in their order."""
    squares = np.square(vector, dtype=np.float64)
    whole = squares.size // _LANES * _LANES
    lanes = np.add.reduce(squares[:whole].reshape(-1, _LANES), axis=0)  # row by row
    lanes[: squares.size - whole] += squares[whole:]
    total = 0.0
    for lane in lanes.tolist():
        total += lane
    return total


def squares_by_layer(squares: Iterable[LayerSquares], layers: int) -> list[float]:
    """Returns the sum of the squares of each layer, added in the order of its pieces."""
    totals = [0.0] * layers
    for layer, square in squares:
        totals[layer] += square
    return totals


def gradient_norms(by_layer: Sequence[float], samples: int) -> Norms:
    """Returns the norms of a mean gradient, from the squares of the sum over so many samples."""
    return many_gradient_norms(np.array([by_layer]), np.array([float(samples)]))[0]


def many_gradient_norms(by_layer: NDArray[np.float64], samples: NDArray[np.float64]) -> list[Norms]:
    """Returns `gradient_norms` of several steps; infinite where float64 has no number for one.

    Args:
        by_layer: Sums of squares, shape (steps, layers).
        samples: Number of samples of each step, shape (steps,).
    """
    with np.errstate(over="ignore"):
        totals = np.add.accumulate(by_layer, axis=1)[:, -1]  # not sum, which adds in another order
    whole, layers = np.sqrt(totals) / samples, np.sqrt(by_layer) / samples[:, np.newaxis]
    return list(map(Norms, whole.tolist(), layers.tolist()))
