"""The sum of a step's gradients, in an order that depends on nothing but their numbers."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Buffers", "TreeSum"]

Vector = NDArray[np.floating]


class Buffers:
    """Vectors of one size, made when there is none that is given back."""

    def __init__(self, size: int, dtype: DTypeLike) -> None:
        """`size` numbers of the type `dtype` each."""
        self._size = size
        self._dtype = np.dtype(dtype)
        self._free: list[Vector] = []

    def take(self) -> Vector:
        """A vector with anything in it."""
        return self._free.pop() if self._free else np.empty(self._size, self._dtype)

    def give(self, vector: NDArray[Any] | None) -> None:
        """Gives a vector back; one that was only lent stays whose it is."""
        if vector is not None and vector.flags.writeable:
            self._free.append(vector)


class TreeSum:
    """Adds `parts` vectors in a fixed binary tree over their numbers, as they come in any order.

    On each level the neighbours 2i and 2i+1 are added; one without a neighbour goes up as it is. Floating-point
    addition is commutative but not associative, so the tree fixes the result to the last bit while the order of arrival
    does not matter. At most one vector per open subtree is held, log2(parts) + 1 of them when parts come in order.

    A vector that may be written to is taken over. One that may not is lent: it is only read, and must stand still until
    it is settled or the sum is complete.
    """

    def __init__(self, parts: int, buffers: Buffers) -> None:
        self._parts = parts
        self._buffers = buffers
        self._subtrees: dict[tuple[int, int], Vector] = {}

    def add(self, number: int, vector: Vector) -> tuple[Vector, ...] | None:
        """Adds part `number` (from 0), each part once.

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

    def settle(self, lent: Vector) -> None:
        """The owner of a lent vector wants to write to it: goes on with a copy, if it is still needed."""
        for place, vector in self._subtrees.items():
            if vector is lent:
                self._subtrees[place] = copy = self._buffers.take()
                np.copyto(copy, lent)

    def _sum(self, a: Vector, b: Vector) -> Vector:
        out = next((vector for vector in (a, b) if vector.flags.writeable), None)
        if out is None:
            out = self._buffers.take()
        np.add(a, b, out=out)
        self._buffers.give(next((vector for vector in (a, b) if vector is not out), None))
        return out
