"""The sum of a step's gradients, in an order that depends on nothing but their numbers."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["TreeSum"]

Vector = NDArray[np.floating]


class TreeSum:
    """Adds `parts` vectors in a fixed binary tree over their numbers, as they come in any order.

    On each level the neighbours 2i and 2i+1 are added; one without a neighbour goes up as it is. Floating-point
    addition is commutative but not associative, so the tree fixes the result to the last bit while the order of arrival
    does not matter. At most one vector per open subtree is held, log2(parts) + 1 of them when parts come in order.
    """

    def __init__(self, parts: int) -> None:
        self._parts = parts
        self._subtrees: dict[tuple[int, int], Vector] = {}

    def add(self, number: int, vector: Vector) -> Vector | None:
        """Adds part `number` (from 0), each part once.

        The vector is taken over: it is written into. Returns the sum once all parts are in, else None.
        """
        level, width = 0, self._parts
        while width > 1:
            neighbour = number ^ 1
            if neighbour < width:
                other = self._subtrees.pop((level, neighbour), None)
                if other is None:
                    self._subtrees[level, number] = vector
                    return None
                vector += other
            level, number, width = level + 1, number // 2, (width + 1) // 2
        return vector
