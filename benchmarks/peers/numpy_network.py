"""The network as one would write it by hand in numpy: one row per sample, sigmoid everywhere, log loss."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.task import Floats, Layer

__all__ = ["gradient", "scaled"]

_PER_GREY_VALUE = np.float32(1 / 255)


def scaled(images: NDArray[np.uint8], rows: NDArray[np.intp]) -> Floats:
    """Some of the images, (samples, pixels), from grey values to [0, 1]."""
    x: Floats = images.take(rows, axis=0) * _PER_GREY_VALUE
    return x


def gradient(weights: Sequence[Layer], x: Floats, y: Floats, gradients: Sequence[Layer]) -> float:
    """Writes the gradient of the summed cost, and gives the cost.

    Args:
        weights: W and b of each layer.
        x: (samples, features).
        y: One-hot, (samples, outputs).
        gradients: Of the same shapes as the weights; overwritten.
    """
    a = [x]
    for W, b in weights:
        z = a[-1] @ W.T
        z += b
        a.append(1 / (1 + np.exp(-z)))
    delta = a[-1] - y
    for number in reversed(range(len(weights))):
        np.matmul(delta.T, a[number], out=gradients[number][0])
        delta.sum(axis=0, out=gradients[number][1])
        if number:
            delta = (delta @ weights[number][0]) * (a[number] * (1 - a[number]))
    return _log_loss(z, y)


def _log_loss(z: Floats, y: Floats) -> float:
    """-[y log a + (1 - y) log(1 - a)] = log(1 + exp z) - y z, so that no logarithm of 0 comes up; summed."""
    cost = np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0) - y * z
    return float(cost.sum(dtype=np.float64))
