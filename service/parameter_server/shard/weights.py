"""The vectors of a training: weights, moments of the optimizer, and the best weights so far."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.image import Snapshot
from service.parameter_server.shard.norms import LayerSquares, Norms, gradient_norms, squares_by_layer, sum_of_squares
from workers.mathematics.optimizers import Block, Optimizer

__all__ = ["Weights"]

Vector = NDArray[np.floating]

# Numbers that are added and applied together, so that they stay in the cache from the sum to the update. Norms are sums
# over the pieces of layers in such blocks, so it is the same in workers/native/step_server.c.
_BLOCK = 128 * 1024

_Piece = tuple[int, slice]  # number of a layer, and place of its numbers in a block


class Weights:
    """Weights and optimizer: the only code that changes the weights.

    Version v of the weights lies in buffer v % n of n. With one buffer an update works in place. With more it writes
    the next version beside the present one, which others may read meanwhile: it stays whole for n - 1 updates.

    Attributes:
        versions: The buffers, each of shape (size,), always the same arrays.
        parameters: The weights of the present version, shape (size,): one of the buffers.
        optimizer: The update rule.
        layer_starts: Index of the first number of each layer.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start: Snapshot,
        layer_starts: Sequence[int],
        *,
        keep_best: bool,
        versions: Sequence[Vector] = (),
    ) -> None:
        """Begins with the state of a snapshot.

        Args:
            optimizer: The update rule.
            start: Its writable vectors are owned from now on. Without moments the optimizer begins anew.
            layer_starts: Index of the first number of each layer, as `ParameterLayout.starts`.
            keep_best: Whether the best weights are kept.
            versions: The buffers; the snapshot's weights are one of them, at the place of their version. Empty: these
                weights alone.
        """
        self.versions = tuple(versions) or (start.parameters,)
        self._present = start.state.step % len(self.versions)
        self.parameters = self.versions[self._present]
        self.optimizer = optimizer
        self.layer_starts = layer_starts
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
    def moments(self) -> tuple[Vector, ...]:
        """Vectors of the optimizer's state, always the same arrays."""
        return self._state.moments

    def count_updates(self, updates: int) -> None:
        """Counts updates that were made in place, with these moments."""
        self._state = self._state._replace(updates=self._state.updates + updates)

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
        squares: list[LayerSquares] | None = [] if with_norms else None
        following = (self._present + 1) % len(self.versions)
        target = self.versions[following]
        blocks = self._gradient_blocks(addends, target, squares)
        self._state = self.optimizer.update(target, blocks, samples, self._state)
        self._present, self.parameters = following, target
        if squares is None:
            return None
        norms = gradient_norms(squares_by_layer(squares, self._layers), samples)
        return norms._replace(weights=self.norms_by_layer()) if with_weight_norms else norms

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

    def norms_by_layer(self) -> list[float]:
        """Returns the Euclidean norms of the layers of weights."""
        squares = squares_by_layer(_squares(self.parameters, self._blocks), self._layers)
        return [math.sqrt(square) for square in squares]

    def _gradient_blocks(
        self, addends: tuple[Vector, ...], target: Vector, squares: list[LayerSquares] | None
    ) -> Iterator[Block]:
        """Yields the sum of the samples' gradients, block by block; adds its squares to the list, if there is one.

        Copies each block of the weights into the target first, if that is another buffer. The caller updates the
        weights of a block before it asks for the next, while all is in the cache.
        """
        for place, pieces in self._blocks:
            first = addends[0][place]
            total = self._sum[: first.size]
            if len(addends) == 2:
                np.add(first, addends[1][place], out=total)
            else:
                np.copyto(total, first)
            if target is not self.parameters:
                np.copyto(target[place], self.parameters[place])
            if squares is not None:
                squares.extend((layer, sum_of_squares(total[piece])) for layer, piece in pieces)
            yield place, total


def _squares(vector: Vector, blocks: Sequence[tuple[slice, list[_Piece]]]) -> Iterator[LayerSquares]:
    for place, pieces in blocks:
        for layer, piece in pieces:
            yield layer, sum_of_squares(vector[place][piece])


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
