"""Where the weights and biases of a network lie in its flat parameter vector."""

from collections.abc import Sequence
from typing import TypeAlias

from workers.mathematics.arrays import Array

View: TypeAlias = tuple[Array, Array | None]  # W(N) (nodes of L(N+1), nodes of L(N)), b(N) (nodes of L(N+1),)


class ParameterLayout:
    """W(0), b(0), W(1), b(1)…, row by row, one after the other.

    b(N) is the bias that goes with W(N), so it belongs to the nodes of L(N+1).

    Attributes:
        layers: Nodes of L(0)…L(E).
        bias: Whether there are biases.
        size: Numbers in the vector.
        starts: Where W(N) begins, by N.
    """

    def __init__(self, layers: Sequence[int], bias: bool) -> None:
        self.layers = tuple(layers)
        self.bias = bias
        self._places: list[tuple[slice, slice | None, tuple[int, int]]] = []
        end = 0
        for sources, targets in zip(self.layers[:-1], self.layers[1:], strict=True):
            weights = slice(end, end + targets * sources)
            biases = slice(weights.stop, weights.stop + targets) if bias else None
            self._places.append((weights, biases, (targets, sources)))
            end = biases.stop if biases else weights.stop
        self.size = end
        self.starts = [weights.start for weights, _, _ in self._places]

    def views(self, vector: Array) -> list[View]:
        """W(N) and b(N), at index N, as views into the vector: writing to one writes to the other.

        Raises:
            ValueError: The vector has another size, or gaps between its numbers.
        """
        if vector.shape != (self.size,) or not vector.flags.c_contiguous:
            raise ValueError(
                f"A parameter vector of layers {list(self.layers)} must be contiguous and have the shape "
                f"({self.size},), not {vector.shape}."
            )
        return [
            (vector[weights].reshape(shape), vector[biases] if biases else None)
            for weights, biases, shape in self._places
        ]

    def named(self, vector: Array) -> dict[str, Array]:
        """The same views by the names that files give them: W0, b0, W1, b1 and so on."""
        views: dict[str, Array] = {}
        for number, (weights, biases) in enumerate(self.views(vector)):
            views[f"W{number}"] = weights
            if biases is not None:
                views[f"b{number}"] = biases
        return views
