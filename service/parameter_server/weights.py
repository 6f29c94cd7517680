"""The vectors of a training: weights, what the optimizer remembers, and the best weights so far."""

import hashlib
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.image import Snapshot
from workers.mathematics.optimizers import Block, Optimizer

__all__ = ["Weights"]

Vector = NDArray[np.floating]

# Numbers that are added and applied at a time, so that they stay in the cache from the sum to the update.
_BLOCK = 128 * 1024


class Weights:
    """The only code that changes the weights.

    Attributes:
        parameters: The weights, shape (size,), always the same array.
    """

    def __init__(self, optimizer: Optimizer, start: Snapshot, *, keep_best: bool) -> None:
        """Begins where an attempt begins.

        Args:
            optimizer: The update rule.
            start: Its vectors are taken over, if they may be written to. Without moments the optimizer begins anew.
            keep_best: Whether there will be best weights.
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
        self._blocks = [slice(begin, begin + _BLOCK) for begin in range(0, size, _BLOCK)]

    @property
    def updates(self) -> int:
        """That the optimizer counts."""
        return self._state.updates

    @property
    def result(self) -> Vector:
        """The weights that the training leaves: the best ones if they are kept, else the present ones."""
        return self._best if self._best is not None and self._has_best else self.parameters

    def update(self, addends: tuple[Vector, ...], samples: int, *, with_norm: bool) -> float | None:
        """W ← W − ε ∇ with ∇ the mean over the mini-batch: eq. (94) of the paper, and the 1/n of its eq. (37).

        Args:
            addends: One or two vectors whose sum is the sum of the samples' gradients.
            samples: Of the mini-batch.
            with_norm: Whether the norm of ∇ is wanted.

        Returns:
            The Euclidean norm of ∇, if it is wanted.
        """
        squares: list[float] | None = [] if with_norm else None
        blocks = self._gradient_blocks(addends, squares)
        self._state = self._optimizer.update(self.parameters, blocks, samples, self._state)
        return None if squares is None else math.sqrt(math.fsum(squares)) / samples

    def keep(self) -> None:
        """The present weights are the best ones so far; remembered if best ones are kept."""
        if self._best is not None:
            np.copyto(self._best, self.parameters)
            self._has_best = True

    def digest(self) -> str:
        """SHA-256 of the weights, in hexadecimal."""
        return hashlib.sha256(self.parameters.data).hexdigest()

    def snapshot(self, state: ps_pb.TrainingState) -> Snapshot:
        """The vectors themselves, which change with the next update."""
        return Snapshot(state, self.parameters, self._state.moments, self._best if self._has_best else None)

    def _gradient_blocks(self, addends: tuple[Vector, ...], squares: list[float] | None) -> Iterator[Block]:
        """The sum of the samples' gradients; the squares of each block are added to the list, if there is one."""
        for place in self._blocks:
            first = addends[0][place]
            total = self._sum[: first.size]
            if len(addends) == 2:
                np.add(first, addends[1][place], out=total)
            else:
                np.copyto(total, first)
            if squares is not None:
                squares.append(float(np.dot(total, total)))
            yield place, total


def _own(vector: Vector) -> Vector:
    """The vector, or a copy that may be written to."""
    return vector if vector.flags.writeable else vector.copy()
