"""Rows that are gathered in C have the bits of those that are gathered in numpy."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from workers.native.gather import NativeGather
from workers.native.library import missing_reason
from workers.rows import NumpyGather

pytestmark = pytest.mark.skipif(bool(missing_reason()), reason=missing_reason())

_EXTREMES = (0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1e-45, -1e-310, 3e38, 1e39, -1e308, 1 / 3)


@st.composite
def _gathers(draw: st.DrawFn) -> tuple[Any, ...]:
    """Features, targets, shift, factor and type of the computation."""
    rows, columns = draw(st.integers(1, 40)), draw(st.integers(1, 70))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    stored = draw(st.sampled_from(["uint8", "float32", "float64"]))
    if stored == "uint8":
        features = generator.integers(0, 256, (rows, columns), np.uint8)
    else:
        usual = generator.standard_normal((rows, columns))
        some = generator.random((rows, columns)) < draw(st.sampled_from([0.0, 0.3]))
        with np.errstate(over="ignore"):
            features = np.where(some, generator.choice(_EXTREMES, (rows, columns)), usual).astype(stored)
    dtype = np.dtype(draw(st.sampled_from(["float32", "float64"])))
    operands = [
        None if size is None else (generator.standard_normal(size) * 10).astype(dtype)
        for size in (draw(st.sampled_from([None, 1, columns])) for _ in range(2))
    ]
    values = generator.choice(_EXTREMES, (rows, draw(st.integers(0, 3))))
    return features, draw(st.sampled_from([np.arange(rows), values])), *operands, dtype


def _gathered(kind: Any, arguments: tuple[Any, ...], index: NDArray[np.intp], start: int) -> list[bytes]:
    """The bytes of rows, and of a slice of as many."""
    *tables, dtype = arguments
    gather = kind(*tables, len(index), dtype)
    outputs = []
    assert gather.gather_rows(index)
    outputs += [gather.x.tobytes(), gather.targets.tobytes()]
    assert gather.gather_slice(start)
    return [*outputs, gather.x.tobytes(), gather.targets.tobytes()]


@given(_gathers(), st.data())
def test_both_ways_give_the_same_bytes(arguments: tuple[Any, ...], data: st.DataObject) -> None:
    """For every stored and computed type, scaling, size, and number, finite or not; and none warns."""
    rows = len(arguments[0])
    index = np.array(data.draw(st.lists(st.integers(0, rows - 1), max_size=rows)), np.intp)
    start = data.draw(st.integers(0, rows - len(index)))
    assert NativeGather.can_gather(*arguments[:2])
    assert _gathered(NativeGather, arguments, index, start) == _gathered(NumpyGather, arguments, index, start)


@pytest.mark.parametrize("kind", [NativeGather, NumpyGather])
@pytest.mark.parametrize("wrong", [-1, 5, 2**62, -(2**63)])
def test_rows_that_are_not_there_are_not_gathered(kind: Any, wrong: int) -> None:
    """Nothing is written, whichever of the numbers is wrong."""
    gather = kind(np.ones((5, 3), np.uint8), np.arange(5), None, None, 2, np.dtype(np.float32))
    gather.x.fill(7)
    gather.targets.fill(7)
    assert not gather.gather_rows(np.array([0, wrong]))
    assert not gather.gather_rows(np.array([wrong, 0]))
    assert not gather.gather_slice(wrong)
    assert not gather.gather_slice(4)
    assert (gather.x == 7).all()
    assert (gather.targets == 7).all()


@pytest.mark.parametrize(
    "features",
    [np.ones((4, 2), ">f4"), np.ones((2, 4), np.float32).T, np.ones((4, 2), np.float16), np.ones((4, 2), np.int64)],
)
def test_other_tables_are_left_to_numpy(features: NDArray[Any]) -> None:
    """Other byte orders, layouts and types."""
    assert not NativeGather.can_gather(features, np.arange(4))
