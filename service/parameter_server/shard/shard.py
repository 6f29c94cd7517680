"""Shard: the weights of a training with their version, and the gradients on their way into the next one.

Knows parts of steps by their numbers and the owners of borrowed memory by their names; no ticket and no connection.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.checkpoints.image import Snapshot
from service.parameter_server.shard.norms import Norms
from service.parameter_server.shard.reduction import GradientBuffers, TreeSum, all_finite
from service.parameter_server.shard.weights import Weights
from workers.mathematics.optimizers import Optimizer
from workers.transport.tickets import Rejection

__all__ = ["Shard"]

Vector = NDArray[np.floating]


class Shard:
    """All vectors of a training: weights, moments, best weights, and gradients that are being added.

    Attributes:
        version: Number of updates that the weights have seen.
        weights: Weights and optimizer.
        buffers: Pool of gradients; a buffer that is lent for a result comes back with it.
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
            start: State that the attempt begins with; its writable vectors are owned from now on.
            layer_starts: Index in the vectors of the first number of each layer.
            keep_best: Whether the best weights are kept.
            versions: Buffers for the versions of the weights, as for `Weights`.
        """
        self.version = start.state.step
        self.weights = Weights(optimizer, start, layer_starts, keep_best=keep_best, versions=versions)
        self.buffers = GradientBuffers(start.parameters.size, start.parameters.dtype)
        self._sums: dict[int, TreeSum] = {}  # of the open steps
        self._addends: dict[int, tuple[Vector, ...]] = {}  # of the steps whose sums are complete
        self._borrowed: dict[str, tuple[int, Vector]] = {}  # step and gradient, by owner of the memory

    @property
    def parameters(self) -> Vector:
        """The weights of the present version, shape (size,)."""
        return self.weights.parameters

    def validate_gradient(self, gradient: Vector | None) -> Rejection | None:
        """Returns the reason against a gradient; None if it fits the weights and is finite."""
        parameters = self.parameters
        if gradient is None or gradient.shape != parameters.shape or gradient.dtype != parameters.dtype:
            return Rejection.WRONG_SIZE
        return None if all_finite(gradient) else Rejection.NOT_FINITE

    def add_gradient(self, step: int, part: int, parts: int, gradient: Vector, owner: str, weight: float = 1.0) -> None:
        """Adds the gradient of one part of a step, times its weight.

        Args:
            step: Number of the step.
            part: Number of the part, from 0; each is added once.
            parts: Number of parts of the step.
            gradient: Validated; owned from now on. A read-only one is borrowed until it is detached.
            owner: Owner of its memory, if it is borrowed.
            weight: Factor of the gradient; 1 costs nothing.
        """
        if weight != 1.0:
            gradient = self._scaled(gradient, weight)
        if step not in self._sums:
            self._sums[step] = TreeSum(parts, self.buffers)
        if addends := self._sums[step].add_part(part, gradient):
            self._addends[step] = addends
        if not gradient.flags.writeable:
            self._borrowed[owner] = step, gradient

    def detach_gradient(self, owner: str) -> None:
        """Copies the gradient that is borrowed from this owner, if it is still needed: the owner writes to it next."""
        step, gradient = self._borrowed.pop(owner, (-1, None))
        if gradient is not None and step in self._sums:
            self._sums[step].detach_part(gradient)

    def count_updates(self, updates: int) -> None:
        """Counts updates that the native step core has made in place."""
        self.weights.count_updates(updates)
        self.version += updates

    def update(
        self, step: int, samples: int, *, with_norms: bool = False, with_weight_norms: bool = False
    ) -> Norms | None:
        """Applies the gradients of a step that came, which makes the next version of the weights.

        Args:
            step: Number of the step; at least one of its parts has come.
            samples: Number of samples that the gradients that came are sums over.
            with_norms: Whether to measure the norms of the mean gradient.
            with_weight_norms: Whether to measure those of the weights with them.

        Returns:
            The norms, if they are measured.
        """
        tree = self._sums.pop(step)
        addends = self._addends.pop(step, None) or tree.take_addends()
        self._borrowed = {owner: entry for owner, entry in self._borrowed.items() if entry[0] != step}
        norms = self.weights.update(addends, samples, with_norms=with_norms, with_weight_norms=with_weight_norms)
        for vector in addends:
            self.buffers.return_buffer(vector)
        self.version += 1
        return norms

    def _scaled(self, gradient: Vector, weight: float) -> Vector:
        """Returns the gradient times its weight, as a vector of ours; a borrowed one stays as it is."""
        out = gradient if gradient.flags.writeable else self.buffers.lend_buffer()
        return np.multiply(gradient, gradient.dtype.type(weight), out=out)
