"""Reduction of gradients: their buffers, and their sum in an order that depends on nothing but their numbers."""

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["GradientBuffers", "TreeSum", "all_finite"]

Vector = NDArray[np.floating]


def all_finite(vector: Vector) -> bool:
    """Returns whether all numbers are finite.

    They are if the sum of their squares is, which costs one pass and no memory.
    """
    return math.isfinite(np.dot(vector, vector)) or bool(np.isfinite(vector).all())


class GradientBuffers:
    """Pool of vectors of one size; makes one when none was returned."""

    def __init__(self, size: int, dtype: DTypeLike) -> None:
        """Makes an empty pool of vectors with `size` numbers of the type `dtype`."""
        self._size = size
        self._dtype = np.dtype(dtype)
        self._free: list[Vector] = []

    def lend_buffer(self) -> Vector:
        """Returns a vector with arbitrary contents."""
        return self._free.pop() if self._free else np.empty(self._size, self._dtype)

    def return_buffer(self, vector: NDArray[Any] | None) -> None:
        """Puts a vector back into the pool; a borrowed one stays its owner's."""
        if vector is not None and vector.flags.writeable:
            self._free.append(vector)


class TreeSum:
    """Adds `parts` vectors in a fixed binary tree over their numbers, as they come in any order.

    On each level the neighbours 2i and 2i+1 are added; one without a neighbour goes up as it is. So the sum of the
    parts that came depends on nothing but their numbers, also where some are missing. Floating-point addition is
    commutative but not associative, so the tree fixes the result to the last bit while the order of arrival does not
    matter. At most one vector per open subtree is held, log2(parts) + 1 of them when parts come in order.

    A writable vector is owned from now on. A read-only one is borrowed: it must not change until it is detached or the
    sum is complete.
    """

    def __init__(self, parts: int, buffers: GradientBuffers) -> None:
        self._parts = parts
        self._buffers = buffers
        self._subtrees: dict[tuple[int, int], Vector] = {}

    def add_part(self, number: int, vector: Vector) -> tuple[Vector, ...] | None:
        """Adds part `number` (from 0); each part is added once.

        Returns:
            Once all parts are in, the one or two vectors whose sum is the sum of all: the last addition is left to the
            caller, who can do it on the way to something else. None before.
        """
        level, width = 0, self._parts
        while width > 1:
            neighbour = number ^ 1
            if neighbour < width:
                other = self._subtrees.pop((level, neighbour), None)
                if other is None:
                    self._subtrees[level, number] = vector
                    return None
                if width == 2:
                    return other, vector
                vector = self._sum(other, vector)
            level, number, width = level + 1, number // 2, (width + 1) // 2
        return (vector,)

    def take_addends(self) -> tuple[Vector, ...]:
        """Ends the sum without the parts that have not come; at least one has.

        Returns:
            The one or two vectors whose sum is the sum of those that came, as `add_part`.
        """
        level, width = 0, self._parts
        subtrees, self._subtrees = self._subtrees, {}
        nodes: dict[int, Vector] = {}  # of this level, by number
        while True:
            nodes |= {number: vector for (at, number), vector in subtrees.items() if at == level}
            if width <= 2:
                return tuple(nodes[number] for number in sorted(nodes))
            above: dict[int, Vector] = {}
            for number, vector in nodes.items():
                other = above.get(number // 2)
                above[number // 2] = vector if other is None else self._sum(other, vector)
            level, width, nodes = level + 1, (width + 1) // 2, above

    def detach_part(self, borrowed: Vector) -> None:
        """Replaces a borrowed vector by a copy if it is still needed, because its owner writes to it next."""
        for place, vector in self._subtrees.items():
            if vector is borrowed:
                self._subtrees[place] = copy = self._buffers.lend_buffer()
                np.copyto(copy, borrowed)

    def _sum(self, a: Vector, b: Vector) -> Vector:
        out = next((vector for vector in (a, b) if vector.flags.writeable), None)
        if out is None:
            out = self._buffers.lend_buffer()
        np.add(a, b, out=out)
        self._buffers.return_buffer(next((vector for vector in (a, b) if vector is not out), None))
        return out
