"""The tree sum: fixed by the numbers of the parts, not by their order of arrival, nor by whose memory they lie in."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.parameter_server.shard.reduction import GradientBuffers, TreeSum

SIZE = 50


def _vectors(parts: int) -> list[np.ndarray]:
    """Numbers of very different sizes, so that every order of additions rounds differently."""
    generator = np.random.default_rng(parts)
    return [
        (generator.normal(size=SIZE) * 10.0 ** generator.integers(-6, 6, SIZE)).astype(np.float32) for _ in range(parts)
    ]


def _fixed_tree(vectors: list[np.ndarray]) -> np.ndarray:
    """Neighbours first, level by level; one without a neighbour goes up as it is."""
    while len(vectors) > 1:
        pairs = [vectors[start : start + 2] for start in range(0, len(vectors), 2)]
        vectors = [pair[0] + pair[1] if len(pair) == 2 else pair[0] for pair in pairs]
    return vectors[0]


def _fixed_tree_of(nodes: dict[int, np.ndarray], width: int) -> np.ndarray:
    """The same tree over those of its leaves that are there."""
    if width == 1:
        return nodes[0]
    above: dict[int, np.ndarray] = {}
    for number in sorted(nodes):
        above[number // 2] = above[number // 2] + nodes[number] if number // 2 in above else nodes[number]
    return _fixed_tree_of(above, (width + 1) // 2)


def _lend(vector: np.ndarray) -> np.ndarray:
    """What the parameter server sees of a worker's memory."""
    borrowed = vector.view()
    borrowed.flags.writeable = False
    return borrowed


def _sum(addends: tuple[np.ndarray, ...] | None) -> np.ndarray:
    assert addends is not None
    assert len(addends) in (1, 2)
    return addends[0] if len(addends) == 1 else addends[0] + addends[1]


def _add_all(vectors: list[np.ndarray], order: list[int]) -> np.ndarray:
    tree = TreeSum(len(vectors), GradientBuffers(SIZE, np.float32))
    sums = [tree.add_part(number, vectors[number]) for number in order]
    assert all(partial is None for partial in sums[:-1])
    return _sum(sums[-1])


@given(st.data(), st.integers(1, 40))
def test_the_order_of_arrival_does_not_change_a_bit(data: st.DataObject, parts: int) -> None:
    """Any permutation of arrivals, borrowed or taken over, gives the bytes of the fixed tree."""
    order = data.draw(st.permutations(range(parts)))
    borrowed = data.draw(st.sets(st.sampled_from(range(parts))))
    vectors = _vectors(parts)
    given_vectors = [_lend(vector) if number in borrowed else vector.copy() for number, vector in enumerate(vectors)]
    assert _add_all(given_vectors, order).tobytes() == _fixed_tree(vectors).tobytes()


def test_neighbours_are_added_first() -> None:
    """The tree is ((0+1)+(2+3))+4, with 4 going up alone."""
    v = _vectors(5)
    expected = ((v[0] + v[1]) + (v[2] + v[3])) + v[4]
    assert _add_all([vector.copy() for vector in v], [3, 0, 4, 2, 1]).tobytes() == expected.tobytes()


@given(st.data(), st.integers(2, 40))
def test_missing_parts_leave_the_tree_as_it_is(data: st.DataObject, parts: int) -> None:
    """The sum of those that came: their neighbour goes up as it is, in any order of arrival, borrowed or taken over."""
    came = sorted(data.draw(st.sets(st.sampled_from(range(parts)), min_size=1, max_size=parts - 1)))
    borrowed = data.draw(st.sets(st.sampled_from(came)))
    vectors, tree = _vectors(parts), TreeSum(parts, GradientBuffers(SIZE, np.float32))
    for number in data.draw(st.permutations(came)):
        assert tree.add_part(number, _lend(vectors[number]) if number in borrowed else vectors[number].copy()) is None
    total = _sum(tree.take_addends())
    assert total.tobytes() == _fixed_tree_of({number: vectors[number] for number in came}, parts).tobytes()


def test_a_neighbour_alone_goes_up() -> None:
    """Without part 1, the tree of five is (0+(2+3))+4."""
    v = _vectors(5)
    tree = TreeSum(5, GradientBuffers(SIZE, np.float32))
    for number in (4, 3, 0, 2):
        tree.add_part(number, v[number].copy())
    left, right = tree.take_addends()
    assert [left.tobytes(), right.tobytes()] == [(v[0] + (v[2] + v[3])).tobytes(), v[4].tobytes()]


@pytest.mark.parametrize("parts", [2, 3, 4, 5, 8])
def test_the_last_addition_is_left_to_the_caller(parts: int) -> None:
    """The two halves of the sum come back as they are, so that the update can add them on its way."""
    vectors = _vectors(parts)
    tree = TreeSum(parts, GradientBuffers(SIZE, np.float32))
    *_, addends = [tree.add_part(number, vector.copy()) for number, vector in enumerate(vectors)]
    assert addends is not None
    left = 1 << (parts - 1).bit_length() - 1  # the largest power of two below `parts`
    halves = _fixed_tree(vectors[:left]), _fixed_tree(vectors[left:])
    assert [addend.tobytes() for addend in addends] == [half.tobytes() for half in halves]


def test_a_single_part_is_its_own_sum() -> None:
    """Nothing is added, and nothing copied."""
    (vector,) = _vectors(1)
    addends = TreeSum(1, GradientBuffers(SIZE, np.float32)).add_part(0, vector)
    assert addends is not None
    assert [addend is vector for addend in addends] == [True]


@given(st.data(), st.integers(1, 16))
def test_what_is_borrowed_is_never_written_to(data: st.DataObject, parts: int) -> None:
    """Workers find in their memory what they wrote there."""
    vectors = _vectors(parts)
    _add_all([_lend(vector) for vector in vectors], data.draw(st.permutations(range(parts))))
    assert [vector.tobytes() for vector in vectors] == [vector.tobytes() for vector in _vectors(parts)]


@given(st.data(), st.integers(1, 16))
def test_what_is_settled_may_change(data: st.DataObject, parts: int) -> None:
    """Workers that write over their memory once it was settled, at any time, change nothing in the sum."""
    order = data.draw(st.permutations(range(parts)))
    memory = _vectors(parts)
    borrowed = [_lend(vector) for vector in memory]
    tree, addends = TreeSum(parts, GradientBuffers(SIZE, np.float32)), None
    open_loans: list[int] = []
    for number in order:
        addends = tree.add_part(number, borrowed[number])
        open_loans.append(number)
        # The last one is not settled: its sum is complete.
        for settled in data.draw(st.sets(st.sampled_from(open_loans))) if addends is None else ():
            tree.detach_part(borrowed[settled])
            memory[settled].fill(np.nan)
            open_loans.remove(settled)
    assert _sum(addends).tobytes() == _fixed_tree(_vectors(parts)).tobytes()


def test_settling_what_was_added_already_takes_no_memory() -> None:
    """Only a vector that is still needed as it is has to be copied."""
    buffers = GradientBuffers(SIZE, np.float32)
    tree, borrowed = TreeSum(4, buffers), [_lend(vector) for vector in _vectors(4)]
    tree.add_part(0, borrowed[0])
    tree.add_part(1, borrowed[1])
    held = list(tree._subtrees.values())
    tree.detach_part(borrowed[0])
    tree.detach_part(borrowed[1])
    assert [each is before for each, before in zip(tree._subtrees.values(), held, strict=True)] == [True]
    assert buffers._free == []


@given(st.integers(1, 64))
def test_it_holds_no_more_vectors_than_open_subtrees(parts: int) -> None:
    """Parts that come in order need room for the logarithm of their number."""
    tree = TreeSum(parts, GradientBuffers(1, np.float64))
    for number in range(parts):
        tree.add_part(number, np.zeros(1))
        assert len(tree._subtrees) <= parts.bit_length()


@given(st.data(), st.integers(1, 16))
def test_every_buffer_comes_back_once(data: st.DataObject, parts: int) -> None:
    """What was taken for vectors and sums is given back or part of the result, and nothing is there twice."""
    buffers = GradientBuffers(SIZE, np.float32)
    owned = [buffers.lend_buffer() for _ in range(parts)]
    for vector in owned:
        vector.fill(1)
    borrowed = data.draw(st.sets(st.sampled_from(range(parts))))
    tree, addends = TreeSum(parts, buffers), None
    for number in data.draw(st.permutations(range(parts))):
        addends = tree.add_part(number, _lend(owned[number]) if number in borrowed else owned[number])
    for addend in addends or ():
        buffers.return_buffer(addend)
    counts = Counter(map(id, buffers._free))
    assert set(counts.values()) <= {1}
    assert {id(vector) for number, vector in enumerate(owned) if number not in borrowed} <= counts.keys()
    assert not any(id(owned[number]) in counts for number in borrowed)


def test_a_buffer_that_came_back_is_taken_again() -> None:
    """Room is made only when none is free, and it has the size and type that was asked for."""
    buffers = GradientBuffers(SIZE, np.float32)
    first, second = buffers.lend_buffer(), buffers.lend_buffer()
    assert (first.shape, first.dtype) == ((SIZE,), np.float32)
    buffers.return_buffer(first)
    assert buffers.lend_buffer() is first
    assert buffers.lend_buffer() is not second


def test_what_was_borrowed_stays_whose_it_is() -> None:
    """A read-only vector, or none, is no buffer."""
    buffers = GradientBuffers(SIZE, np.float32)
    buffers.return_buffer(_lend(np.zeros(SIZE, np.float32)))
    buffers.return_buffer(None)
    assert buffers._free == []
