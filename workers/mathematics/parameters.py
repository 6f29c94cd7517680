"""Layout of the weights and biases of a network in its flat parameter vector."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from workers.mathematics.arrays import Array

View: TypeAlias = tuple[Array, Array | None]  # W(N) (nodes of L(N+1), nodes of L(N)), b(N) (nodes of L(N+1),)


class ParameterLayout:
    """Layout of a parameter vector: W(0), b(0), W(1), b(1)…, row by row, without gaps.

    b(N) is the bias added to the product with W(N), so it belongs to the nodes of L(N+1).

    Attributes:
        layers: Nodes of L(0)…L(E).
        bias: True if there are biases.
        size: Length of the vector.
        starts: Index of the first number of W(N), by N.
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
        """Returns W(N) and b(N), at index N, as views: writing to a view writes to the vector.

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

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns shapes by the names of W(N) and b(N) in files, in the vector's order: W0, b0, W1, b1 and so on."""
        shapes: dict[str, tuple[int, ...]] = {}
        for number, (_, biases, shape) in enumerate(self._places):
            shapes[f"W{number}"] = shape
            if biases:
                shapes[f"b{number}"] = shape[:1]
        return shapes

    def from_named(self, arrays: Mapping[str, Array]) -> list[View]:
        """Returns views, as `views` does, of arrays that have the names and shapes of `shapes`."""
        return [(arrays[f"W{number}"], arrays.get(f"b{number}")) for number in range(len(self._places))]
