"""Buffers of back-propagation for one number of samples, reused at every step: matrices and targets."""

from collections.abc import Callable
from copy import copy
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from workers.mathematics.activations import ACTIVATIONS
from workers.mathematics.arrays import Array, Scratch
from workers.mathematics.network import Network

# Class labels, integers (samples,); or values, floating-point (samples, output nodes).
Given: TypeAlias = npt.NDArray[Any]

# Up to this number of classes, columns of an identity matrix are copied faster than single numbers are set.
_FEW_CLASSES = 16


class Targets:
    """Targets of one micro-batch.

    Attributes:
        y: Target matrix, (output nodes, samples): one-hot for class labels on several output nodes; the
            label itself, 0 or 1, on one.
    """

    def __init__(self, outputs: int, samples: int, dtype: np.dtype[Any]) -> None:
        self.y: Array = np.empty((outputs, samples), dtype)
        self._are_labels = False
        self._labels = np.empty(samples, np.intp)
        self._samples = np.arange(samples)
        self._one_hot = np.eye(outputs, dtype=dtype) if 1 < outputs <= _FEW_CLASSES else None
        self._a_by_sample = np.empty((samples, outputs), dtype)
        self._predicted = np.empty(samples, np.intp)
        self._right = np.empty(samples, np.bool_)

    def load(self, given: Given) -> None:
        """Loads the targets of the next micro-batch.

        Args:
            given: Class labels, whose range the caller has checked; or values.

        Raises:
            ValueError: Type and shape are neither those of labels nor those of values.
        """
        outputs, samples = self.y.shape
        self._are_labels = given.dtype.kind in "iu"
        wanted = (samples,) if self._are_labels else (samples, outputs)
        if given.dtype.kind not in "iuf" or given.shape != wanted:
            raise ValueError(
                f"Targets must be integer class labels of shape ({samples},) or floating-point values of shape "
                f"({samples}, {outputs}), not {given.dtype} of shape {given.shape}."
            )
        if self._are_labels:
            self._load_labels(given)
        else:
            np.copyto(self.y, given.T, casting="same_kind")

    def _load_labels(self, labels: Given) -> None:
        self._labels = labels.astype(np.intp, casting="same_kind", copy=False)
        if len(self.y) == 1:
            np.copyto(self.y[0], self._labels, casting="same_kind")
            return
        if self._one_hot is not None:
            # The labels are in range, so "clip" changes nothing; with "raise" numpy would copy the output.
            self._one_hot.take(self._labels, axis=1, out=self.y, mode="clip")
            return
        self.y.fill(0)
        self.y[self._labels, self._samples] = 1

    def count_right(self, a: Array) -> int:
        """Returns the number of samples classified correctly; 0 if the targets are values.

        The class is the node with the largest activity, the first of equals. With one output node it is 1 from an
        activity of 0.5 on, half-way between the two target values, for every activation.

        Args:
            a: Activities of the output layer, (output nodes, samples).
        """
        if not self._are_labels:
            return 0
        if len(a) == 1:
            np.greater_equal(a[0], 0.5, out=self._right)
            np.equal(self._right, self._labels, out=self._right)
        else:
            # An explicit copy, because argmax over another axis than the last allocates one.
            np.copyto(self._a_by_sample, a.T)
            self._a_by_sample.argmax(axis=1, out=self._predicted)
            np.equal(self._predicted, self._labels, out=self._right)
        return int(np.count_nonzero(self._right))


class Workspace:
    """Matrices of all layers N from 1 to E, by N; all of the shape (nodes, samples) and C-contiguous.

    Attributes:
        z: Z(N); the same array as A(N) unless the activation keeps z.
        a: A(N).
        delta: ∂Λ/∂a of the layer, and then δ(N).
        scratch: Buffers for intermediate results of the layer.
        cost: λ of the output nodes.
        wide: Buffer for the float64 copy of the largest matrix that is added up.
        targets: Targets of the micro-batch.
    """

    def __init__(self, network: Network, dtype: np.dtype[Any], samples: int) -> None:
        layers = range(1, len(network.layers))
        shapes = {layer: (network.layers[layer], samples) for layer in layers}
        self.z = {layer: np.empty(shapes[layer], dtype) for layer in layers}
        self.a = {
            layer: np.empty(shapes[layer], dtype) if ACTIVATIONS[activation].keeps_z else self.z[layer]
            for layer, activation in enumerate(network.activations, start=1)
        }
        self.delta = {layer: np.empty(shapes[layer], dtype) for layer in layers}
        self.scratch = _scratches(shapes, dtype, samples)
        self.cost = np.empty((network.layers[-1], samples), dtype)
        summed = {network.output_layer} | {term.layer for term in network.inner_terms}
        self.wide = np.empty(max(network.layers[layer] for layer in summed) * samples, np.float64)
        self.targets = Targets(network.layers[-1], samples, dtype)

    def mapped(self, function: Callable[[Array], Array]) -> "Workspace":
        """Returns a workspace with what a function makes of each of the arrays that formulas use."""
        same = copy(self)
        same.z, same.a, same.delta = (
            {layer: function(array) for layer, array in arrays.items()} for arrays in (self.z, self.a, self.delta)
        )
        same.scratch = {layer: Scratch(*map(function, scratch)) for layer, scratch in self.scratch.items()}
        same.cost, same.targets = function(self.cost), copy(self.targets)
        same.targets.y = function(self.targets.y)
        return same


def _scratches(shapes: dict[int, tuple[int, int]], dtype: np.dtype[Any], samples: int) -> dict[int, Scratch]:
    """Returns views into arrays that all layers share, because only one layer is computed at a time."""
    largest = max(nodes for nodes, _ in shapes.values())
    d, spare = np.empty((largest, samples), dtype), np.empty((largest, samples), dtype)
    row: Array = np.empty((1, samples), dtype)
    return {layer: Scratch(d[:nodes], spare[:nodes], row) for layer, (nodes, _) in shapes.items()}
