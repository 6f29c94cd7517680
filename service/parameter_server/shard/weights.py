"""The vectors of a training: weights, moments of the optimizer, and the best weights so far."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.image import Snapshot
from workers.mathematics.optimizers import Block, Optimizer

__all__ = ["Norms", "Weights"]

Vector = NDArray[np.floating]

# Numbers that are added and applied together, so that they stay in the cache from the sum to the update.
_BLOCK = 128 * 1024

_Piece = tuple[int, slice]  # number of a layer, and place of its numbers in a block


class Norms:
    """Euclidean norms of one update, by layer: of W(N) with b(N), at index N.

    Squares are added up block by block during the update; the norms are computed when they are read. They depend on
    nothing but the vectors, because the blocks are always the same.
    """

    def __init__(self, layers: int, samples: int) -> None:
        """Starts at zero, for gradients that are sums over `samples` samples."""
        self._samples = samples
        self._gradient_squares: list[list[float]] = [[] for _ in range(layers)]
        self._weight_squares: list[list[float]] = [[] for _ in range(layers)]

    def add_gradient(self, block: Vector, pieces: Sequence[_Piece]) -> None:
        """Adds a block of the sum of the samples' gradients, which has these pieces of layers."""
        _add_squares(self._gradient_squares, block, pieces)

    def add_weights(self, block: Vector, pieces: Sequence[_Piece]) -> None:
        """Adds a block of the weights after the update, which has these pieces of layers."""
        _add_squares(self._weight_squares, block, pieces)

    @property
    def gradient(self) -> float:
        """Norm of the whole mean gradient."""
        return math.sqrt(_sum(map(_sum, self._gradient_squares))) / self._samples

    @property
    def gradients(self) -> list[float]:
        """Norm of the mean gradient by layer."""
        return [math.sqrt(_sum(squares)) / self._samples for squares in self._gradient_squares]

    @property
    def weights(self) -> list[float]:
        """Norm of the weights after the update by layer; empty if it was not measured."""
        return [math.sqrt(_sum(squares)) for squares in self._weight_squares if squares]


class Weights:
    """Weights and optimizer: the only code that changes the weights.

    Attributes:
        parameters: The weights, shape (size,), always the same array.
    """

    def __init__(self, optimizer: Optimizer, start: Snapshot, layer_starts: Sequence[int], *, keep_best: bool) -> None:
        """Begins with the state of a snapshot.

        Args:
            optimizer: The update rule.
            start: Its writable vectors are owned from now on. Without moments the optimizer begins anew.
            layer_starts: Index of the first number of each layer, as `ParameterLayout.starts`.
            keep_best: Whether the best weights are kept.
        """
        self.parameters = start.parameters
        self._optimizer = optimizer
        state = optimizer.init(self.parameters)
        moments = tuple(_own(moment) for moment in start.moments) or state.moments
        self._state = state._replace(updates=start.state.optimizer_updates, moments=moments)
        self._best: Vector | None = None
        self._has_best = keep_best and start.best is not None
        if keep_best:
            self._best = np.empty_like(self.parameters) if start.best is None else _own(start.best)
        size = self.parameters.size
        self._sum = np.empty(min(_BLOCK, size), self.parameters.dtype)
        blocks = [slice(begin, min(begin + _BLOCK, size)) for begin in range(0, size, _BLOCK)]
        self._layers = len(layer_starts)
        self._blocks = [(block, _pieces(block, [*layer_starts, size])) for block in blocks]

    @property
    def updates(self) -> int:
        """Number of updates that the optimizer counts."""
        return self._state.updates

    @property
    def result(self) -> Vector:
        """Weights that the training leaves: the best ones if they are kept, else the present ones."""
        return self._best if self._best is not None and self._has_best else self.parameters

    def update(
        self, addends: tuple[Vector, ...], samples: int, *, with_norms: bool = False, with_weight_norms: bool = False
    ) -> Norms | None:
        """W ← W − ε ∇ with ∇ the mean over the mini-batch: eq. (94) of the paper, and the 1/n of its eq. (37).

        Args:
            addends: One or two vectors whose sum is the sum of the samples' gradients.
            samples: Number of samples of the mini-batch.
            with_norms: Whether to measure the norms of ∇.
            with_weight_norms: Whether to measure those of the weights with them.

        Returns:
            The norms, if they are measured.
        """
        norms = Norms(self._layers, samples) if with_norms else None
        blocks = self._gradient_blocks(addends, norms, with_weight_norms)
        self._state = self._optimizer.update(self.parameters, blocks, samples, self._state)
        return norms

    def keep_as_best(self) -> None:
        """Copies the present weights, the best ones so far, if best weights are kept."""
        if self._best is not None:
            np.copyto(self._best, self.parameters)
            self._has_best = True

    @property
    def layers(self) -> int:
        """Number of layers of weights."""
        return self._layers

    def norm(self) -> float:
        """Returns the Euclidean norm of the weights; infinite where the type has no number for it."""
        with np.errstate(over="ignore"):
            return float(np.linalg.norm(self.parameters))

    def digest(self) -> str:
        """Returns the SHA-256 of the weights, in hexadecimal."""
        return hashlib.sha256(self.parameters.data).hexdigest()

    def snapshot(self, state: ps_pb.TrainingState) -> Snapshot:
        """Returns the vectors themselves, which change with the next update."""
        return Snapshot(state, self.parameters, self._state.moments, self._best if self._has_best else None)

    def _gradient_blocks(
        self, addends: tuple[Vector, ...], norms: Norms | None, with_weight_norms: bool
    ) -> Iterator[Block]:
        """Yields the sum of the samples' gradients, block by block, and adds to the norms that are measured.

        The caller updates the weights of a block before it asks for the next: both are measured while in the cache.
        """
        for place, pieces in self._blocks:
            first = addends[0][place]
            total = self._sum[: first.size]
            if len(addends) == 2:
                np.add(first, addends[1][place], out=total)
            else:
                np.copyto(total, first)
            if norms:
                norms.add_gradient(total, pieces)
            yield place, total
            if norms and with_weight_norms:
                norms.add_weights(self.parameters[place], pieces)


def _add_squares(squares: list[list[float]], block: Vector, pieces: Sequence[_Piece]) -> None:
    for layer, place in pieces:
        piece = block[place]
        squares[layer].append(float(np.dot(piece, piece)))


def _sum(squares: Iterable[float]) -> float:
    """Adds, and rounds once; infinite where a training diverges so far that the type has no number for it."""
    try:
        return math.fsum(squares)
    except OverflowError:
        return math.inf


def _pieces(block: slice, edges: Sequence[int]) -> list[_Piece]:
    """Returns the pieces of layers in a block; layers lie between these edges."""
    inside = [(max(begin, block.start), min(end, block.stop)) for begin, end in pairwise(edges)]
    return [
        (layer, slice(begin - block.start, end - block.start))
        for layer, (begin, end) in enumerate(inside)
        if begin < end
    ]


def _own(vector: Vector) -> Vector:
    """Returns the vector, or a copy if it is read-only."""
    return vector if vector.flags.writeable else vector.copy()
