"""Statistics against numpy, in blocks or not."""

from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.datasets import statistics
from service.datasets.statistics import compute_statistics, load_statistics, save_statistics

numbers = st.floats(-1e6, 1e6, allow_subnormal=False, width=32)
tables = arrays.arrays(np.float32, st.tuples(st.integers(1, 40), st.integers(1, 5)), elements=numbers)


def assert_as_numpy(x: NDArray[Any]) -> None:
    figures, exact = compute_statistics(x), x.astype(np.float64)
    np.testing.assert_array_equal(figures.minimum, exact.min(axis=0))
    np.testing.assert_array_equal(figures.maximum, exact.max(axis=0))
    size = np.abs(exact).max(axis=0)
    assert (np.abs(figures.mean - exact.mean(axis=0)) <= 1e-13 * size).all()
    assert (np.abs(figures.standard_deviation - exact.std(axis=0)) <= 1e-12 * size).all()


@settings(deadline=None)
@given(tables, st.integers(1, 50))
def test_as_numpy(x: NDArray[np.float32], block_rows: int) -> None:
    """Minimum, maximum, mean and deviation are numpy's, whatever the size of the blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "rows_per_block", lambda _: block_rows)
        assert_as_numpy(x)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_as_numpy_in_real_blocks(dtype: Any) -> None:
    """The same over several blocks of the real size and for every stored type."""
    rng = np.random.default_rng(1)
    assert_as_numpy(rng.integers(0, 256, (600_001, 2)).astype(dtype))


def test_small_spread_around_a_large_mean() -> None:
    """No digits are lost where the mean is large against the deviation."""
    x = 1e9 + np.tile([[0.0], [1.0]], (500_000, 1))
    figures = compute_statistics(x)
    np.testing.assert_allclose(figures.standard_deviation, 0.5, rtol=1e-12)
    np.testing.assert_allclose(figures.mean, 1e9 + 0.5, rtol=1e-15)


@settings(deadline=None)
@given(st.floats(-1e300, 1e300, allow_nan=False), st.integers(1, 1000))
def test_constant(value: float, rows: int) -> None:
    """A feature that never changes has exactly its value as mean and exactly 0 as deviation."""
    figures = compute_statistics(np.full((rows, 1), value))
    assert figures.mean[0] == value
    assert figures.standard_deviation[0] == 0


@settings(deadline=None)
@given(tables)
def test_pooled(x: NDArray[np.float32]) -> None:
    """Pooled figures are those of all features as one column."""
    pooled, column = compute_statistics(x).pooled(), compute_statistics(x.reshape(-1, 1))
    size = float(np.abs(x).max())
    assert pooled.minimum == column.minimum
    assert pooled.maximum == column.maximum
    assert np.abs(pooled.mean - column.mean) <= 1e-13 * size
    assert np.abs(pooled.standard_deviation - column.standard_deviation) <= 1e-12 * size


def test_saved(tmp_path: Path) -> None:
    """What is saved is loaded bit for bit."""
    figures = compute_statistics(np.random.default_rng(2).normal(size=(100, 7)))
    save_statistics(figures, tmp_path)
    loaded = load_statistics(tmp_path)
    assert {name: array.tobytes() for name, array in vars(loaded).items()} == {
        name: array.tobytes() for name, array in vars(figures).items()
    }
