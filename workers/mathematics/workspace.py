"""The buffers of back-propagation for one number of samples, made once and used for every step."""

from typing import Any

import numpy as np

from workers.mathematics.activations import ACTIVATIONS
from workers.mathematics.arrays import Array, Scratch
from workers.mathematics.network import Network
from workers.mathematics.targets import Targets


class Workspace:
    """Matrices of every layer N from 1 to E, by N; all of the shape (nodes, samples) and C-contiguous.

    Attributes:
        z: Z(N). One array with A(N) unless the activation keeps z.
        a: A(N).
        delta: ∂Λ/∂a of the layer, and then δ(N).
        scratch: Room for intermediate results of the layer.
        cost: λ of the output nodes.
        wide: Room for the float64 copy of the largest matrix that is added up.
        targets: What the outputs should be.
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


def _scratches(shapes: dict[int, tuple[int, int]], dtype: np.dtype[Any], samples: int) -> dict[int, Scratch]:
    """Views into two arrays that all layers share; for only one layer is at work at a time."""
    largest = max(nodes for nodes, _ in shapes.values())
    d, spare = np.empty((largest, samples), dtype), np.empty((largest, samples), dtype)
    row: Array = np.empty((1, samples), dtype)
    return {layer: Scratch(d[:nodes], spare[:nodes], row) for layer, (nodes, _) in shapes.items()}
