"""What the outputs should be, in the shape of the output layer."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from workers.mathematics.arrays import Array

# Class labels, integers (samples,); or values, floating-point (samples, output nodes).
Given: TypeAlias = npt.NDArray[Any]


class Targets:
    """The targets of one micro-batch.

    Attributes:
        y: (output nodes, samples): one-hot for class labels on several output nodes; the label itself, 0 or 1, on one.
    """

    def __init__(self, outputs: int, samples: int, dtype: np.dtype[Any]) -> None:
        self.y: Array = np.empty((outputs, samples), dtype)
        self._are_labels = False
        self._labels = np.empty(samples, np.intp)
        self._samples = np.arange(samples)
        self._a_by_sample = np.empty((samples, outputs), dtype)
        self._predicted = np.empty(samples, np.intp)
        self._right = np.empty(samples, np.bool_)

    def load(self, given: Given) -> None:
        """Take the targets of the next micro-batch.

        Args:
            given: Class labels, whose range is the caller's promise; or values.

        Raises:
            ValueError: Neither of the two by type and shape.
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
        np.copyto(self._labels, labels, casting="same_kind")
        if len(self.y) == 1:
            np.copyto(self.y[0], self._labels, casting="same_kind")
            return
        self.y.fill(0)
        self.y[self._labels, self._samples] = 1

    def count_right(self, a: Array) -> int:
        """How many samples are classified right: 0 when the targets are values.

        The class is the node with the largest activity, the first of equals. With one output node it is 1 from an
        activity of 0.5 on: half-way between the two values that the node is taught, whatever its activation.

        Args:
            a: Activities of the output layer, (output nodes, samples).
        """
        if not self._are_labels:
            return 0
        if len(a) == 1:
            np.greater_equal(a[0], 0.5, out=self._right)
            np.equal(self._right, self._labels, out=self._right)
        else:
            # argmax over any but the last axis would make such a copy itself.
            np.copyto(self._a_by_sample, a.T)
            self._a_by_sample.argmax(axis=1, out=self._predicted)
            np.equal(self._predicted, self._labels, out=self._right)
        return int(np.count_nonzero(self._right))
