"""The arithmetic of a network's form: what a step has to compute and to move. Pure."""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Self

__all__ = ["NUMBER_BYTES", "Form"]

NUMBER_BYTES = 4
"""Of a float32."""

_FEATURES = 784
_OUTPUTS = 10


@dataclass(frozen=True)
class Form:
    """A multi-layer perceptron with biases.

    Attributes:
        layers: Nodes of L(0)…L(E).
    """

    layers: tuple[int, ...]

    @classmethod
    def of_size(cls, weights: float) -> Self:
        """784-h-h-10, with h such that it has about so many weights: the root of h² + 796 h + 10 = weights."""
        half = (_FEATURES + _OUTPUTS + 2) / 2
        h = max(1, round(math.sqrt(half**2 + weights - _OUTPUTS) - half))
        return cls((_FEATURES, h, h, _OUTPUTS))

    @property
    def title(self) -> str:
        """For people."""
        return "-".join(map(str, self.layers))

    @cached_property
    def weights(self) -> int:
        """Weights and biases."""
        return sum((sources + 1) * targets for sources, targets in pairwise(self.layers))

    @property
    def vector_bytes(self) -> int:
        """Of all weights, and of their gradient."""
        return NUMBER_BYTES * self.weights

    @property
    def nodes(self) -> int:
        """Nodes that have an activation."""
        return sum(self.layers[1:])

    @cached_property
    def flops(self) -> int:
        """Floating-point operations of the matrix products for the gradient of one sample.

        Two for each weight of a product: forward W ⊙ A, backward Wᵀ ⊙ δ, except for the first matrix, and ∇ = δ ⊙ Aᵀ.
        """
        products = [sources * targets for sources, targets in pairwise(self.layers)]
        return 2 * (3 * sum(products) - products[0])

    @cached_property
    def gradient_parts(self) -> list[tuple[float, float]]:
        """When the gradient of each layer stands, from the last one on, and what of the vector it is.

        Returns:
            Pairs of the share of the floating-point operations that is done by then, and the share of the weights.
        """
        sizes = [(sources * targets, (sources + 1) * targets) for sources, targets in pairwise(self.layers)]
        done = 2 * sum(product for product, _ in sizes)
        parts = []
        for product, numbers in reversed(sizes):
            done += 2 * product
            parts.append((done / self.flops, numbers / self.weights))
            done += 2 * product  # δ of the layer before
        return parts
