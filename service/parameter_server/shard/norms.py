"""Norms of gradients and weights by layer, from sums of squares whose order depends on nothing but the vector."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["LayerSquares", "Norms", "gradient_norms", "layer_norms", "sum_of_squares"]

LayerSquares = tuple[int, float]  # number of a layer, and the sum of the squares of a piece of it

# Lanes of a sum of squares; the same in workers/native/update.h.
_LANES = 8


class Norms(NamedTuple):
    """Euclidean norms of one update."""

    gradient: float
    """Of the whole mean gradient."""
    gradients: list[float]
    """Of the mean gradient by layer: of W(N) with b(N), at index N."""
    weights: Sequence[float] = ()
    """Of the weights after the update by layer; empty if they were not measured."""


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


def gradient_norms(squares: Iterable[LayerSquares], layers: int, samples: int) -> Norms:
    """Returns the norms of a mean gradient, from the squares of the sum over so many samples."""
    norms = layer_norms(squares, layers)
    return Norms(_norm(norm * norm for norm in norms) / samples, [norm / samples for norm in norms])


def layer_norms(squares: Iterable[LayerSquares], layers: int) -> list[float]:
    """Returns the norm of each layer; infinite where float64 has no number for it."""
    by_layer: list[list[float]] = [[] for _ in range(layers)]
    for layer, square in squares:
        by_layer[layer].append(square)
    return [_norm(pieces) for pieces in by_layer]


def _norm(squares: Iterable[float]) -> float:
    """Adds, and rounds once."""
    try:
        return math.sqrt(math.fsum(squares))
    except OverflowError:
        return math.inf
