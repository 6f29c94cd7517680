"""The tree sum: fixed by the numbers of the parts, not by their order of arrival."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.parameter_server.reduction import TreeSum


def _vectors(parts: int) -> list[np.ndarray]:
    """Numbers of very different sizes, so that every order of additions rounds differently."""
    generator = np.random.default_rng(parts)
    return [
        (generator.normal(size=50) * 10.0 ** generator.integers(-6, 6, 50)).astype(np.float32) for _ in range(parts)
    ]


def _sum(vectors: list[np.ndarray], order: list[int]) -> np.ndarray:
    tree = TreeSum(len(vectors))
    sums = [tree.add(number, vectors[number].copy()) for number in order]
    assert all(partial is None for partial in sums[:-1])
    assert sums[-1] is not None
    return sums[-1]


@given(st.data(), st.integers(1, 40))
def test_the_order_of_arrival_does_not_change_a_bit(data: st.DataObject, parts: int) -> None:
    """Any permutation of arrivals gives the same bytes."""
    order = data.draw(st.permutations(range(parts)))
    vectors = _vectors(parts)
    assert _sum(vectors, order).tobytes() == _sum(vectors, list(range(parts))).tobytes()


def test_neighbours_are_added_first() -> None:
    """The tree is ((0+1)+(2+3))+4, with 4 going up alone."""
    v = _vectors(5)
    expected = ((v[0] + v[1]) + (v[2] + v[3])) + v[4]
    assert _sum(v, [3, 0, 4, 2, 1]).tobytes() == expected.tobytes()


@given(st.integers(1, 64))
def test_it_holds_no_more_vectors_than_open_subtrees(parts: int) -> None:
    """Parts that come in order need room for the logarithm of their number."""
    tree = TreeSum(parts)
    for number in range(parts):
        tree.add(number, np.zeros(1))
        assert len(tree._subtrees) <= parts.bit_length()
