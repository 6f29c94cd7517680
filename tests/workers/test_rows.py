"""Rows come out as they were stored, scaled, from buffers that are used again."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nablad.v1.datasets_pb2 import Dataset
from nablad.v1.parameter_server_pb2 import DataSource, FeatureScaling
from workers.native.gather import NativeGather
from workers.native.library import missing_reason
from workers.rows import Rows

pytestmark = pytest.mark.usefixtures("gather_path")

IDENTITY = FeatureScaling(shift=[0], factor=[1])
X = np.random.default_rng(5).integers(0, 256, (20, 6))
LABELS = np.arange(20) % 3
VALUES = np.linspace(-1, 1, 40).reshape(20, 2)


@pytest.fixture(params=["native", "numpy"])
def gather_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either way of gathering."""
    if request.param == "numpy":
        monkeypatch.setattr(NativeGather, "can_gather", lambda *_: False)
    elif reason := missing_reason():
        pytest.skip(reason)


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., DataSource]:
    """A data set as the service leaves it."""

    def make(x: NDArray[Any], targets: NDArray[Any]) -> DataSource:
        np.save(tmp_path / "features.npy", x)
        np.save(tmp_path / "targets.npy", targets)
        dataset = Dataset(rows=x.shape[0], features=x.shape[1], feature_dtype=x.dtype.name)
        if targets.ndim == 1:
            dataset.classes = 3
        else:
            dataset.target_columns = targets.shape[1]
        return DataSource(dataset=dataset, directory=str(tmp_path))

    return make


@pytest.mark.parametrize("stored", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "scaling",
    [
        IDENTITY,
        FeatureScaling(shift=[3], factor=[1 / 255]),
        FeatureScaling(shift=[0], factor=[0.1]),
        FeatureScaling(shift=range(6), factor=np.linspace(0.1, 2, 6)),
    ],
)
def test_scaled(source: Any, stored: Any, dtype: Any, scaling: FeatureScaling) -> None:
    """Rows are (x - shift) * factor bit for bit in the type to compute with, in the order asked for."""
    rows = Rows(source(X.astype(stored), LABELS), scaling, dtype)
    shift, factor = np.array(scaling.shift, dtype), np.array(scaling.factor, dtype)
    expected = (X.astype(dtype) - shift) * factor
    index = np.array([7, 0, 19, 7])
    for x, targets, wanted in ((*rows.read_rows(index), index), (*rows.read_slice(3, 11), np.arange(3, 11))):
        assert x.dtype == dtype
        assert x.flags.c_contiguous
        np.testing.assert_array_equal(x, expected[wanted])
        np.testing.assert_array_equal(targets, LABELS[wanted])
        assert targets.dtype == np.int64
    assert rows.count == 20
    assert rows.labelled


@pytest.mark.parametrize("features", [1, 3, 20_000, 100_000])
def test_a_figure_for_each_feature(source: Any, features: int) -> None:
    """Each feature has its own shift and factor in every row, however many features and rows there are."""
    generator = np.random.default_rng(6)
    x = generator.integers(0, 256, (8, features)).astype(np.uint8)
    shift, factor = generator.random((2, features), np.float32) + 1
    rows = Rows(source(x, LABELS[:8]), FeatureScaling(shift=shift, factor=factor), np.float32)
    expected = (x.astype(np.float32) - shift) * factor
    np.testing.assert_array_equal(rows.read_slice(0, 8)[0], expected)
    np.testing.assert_array_equal(rows.read_rows(np.array([7, 2]))[0], expected[[7, 2]])


@pytest.mark.parametrize("stored", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize(
    "scaling", [FeatureScaling(shift=[3], factor=[1 / 255]), FeatureScaling(shift=[1] * 400, factor=[2] * 400)]
)
def test_no_allocation_after_the_first_rows(source: Any, stored: Any, scaling: FeatureScaling) -> None:
    """Rows read again in the same number allocate next to nothing: far less than the rows."""
    x = np.ones((600, 400), stored)
    rows, index = Rows(source(x, np.arange(600) % 3), scaling, np.float32), np.arange(250)
    rows.read_rows(index)
    tracemalloc.start()
    try:
        for _ in range(3):
            rows.read_rows(index)
            rows.read_slice(100, 350)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 1024


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("values", [VALUES, VALUES[:, :0]])
def test_values(source: Any, dtype: Any, values: NDArray[np.float64]) -> None:
    """Values come in the type to compute with; rows without targets have values of no columns."""
    rows = Rows(source(X.astype(np.uint8), values), IDENTITY, dtype)
    assert not rows.labelled
    for _, targets in (rows.read_rows(np.arange(20)), rows.read_slice(0, 20)):
        assert targets.dtype == dtype
        np.testing.assert_array_equal(targets, values.astype(dtype))


def test_buffers(source: Any) -> None:
    """The same number of rows comes in the same memory; another number leaves it alone."""
    rows = Rows(source(X.astype(np.uint8), VALUES), IDENTITY, np.float32)
    first_x, first_targets = rows.read_rows(np.array([0, 1]))
    kept = first_x.copy()
    rows.read_rows(np.array([5, 6, 7]))
    np.testing.assert_array_equal(first_x, kept)
    x, targets = rows.read_rows(np.array([8, 9]))
    assert x is first_x
    assert targets is first_targets
    assert rows.read_slice(0, 2)[0] is first_x


def test_stored_rows_stay(source: Any) -> None:
    """Scaling in place never reaches the stored rows, even where their type is the one to compute with."""
    rows = Rows(source(X.astype(np.float32), LABELS), FeatureScaling(shift=[1], factor=[2]), np.float32)
    first = rows.read_slice(0, 20)[0].copy()
    np.testing.assert_array_equal(rows.read_slice(0, 20)[0], first)
    np.testing.assert_array_equal(rows.read_rows(np.arange(20))[0], first)


@pytest.mark.parametrize("index", [[-1], [20], [0, 25]])
def test_no_such_row(source: Any, index: list[int]) -> None:
    """A row number out of range is an error, not another row."""
    rows = Rows(source(X.astype(np.uint8), LABELS), IDENTITY, np.float32)
    with pytest.raises(IndexError, match="Rows go from 0 to 19"):
        rows.read_rows(np.array(index))
    with pytest.raises(IndexError, match="Rows go from 0 to 19"):
        rows.read_slice(index[0], index[-1] + 1)


def test_unreachable(source: Any, tmp_path: Path) -> None:
    """Missing files are explained by what a cluster needs."""
    described = source(X.astype(np.uint8), LABELS)
    (tmp_path / "targets.npy").unlink()
    with pytest.raises(FileNotFoundError, match="from every host that runs workers"):
        Rows(described, IDENTITY, np.float32)


@pytest.mark.parametrize("field", ["rows", "features", "target_columns", "classes", "feature_dtype"])
def test_other_data_set(source: Any, field: str) -> None:
    """Files of another shape or type than described are rejected."""
    described = source(X.astype(np.uint8), VALUES)
    changed = Dataset(rows=21, features=7, target_columns=1, classes=4, feature_dtype="float32")
    setattr(described.dataset, field, getattr(changed, field))
    with pytest.raises(ValueError, match="should hold"):
        Rows(described, IDENTITY, np.float32)


def test_damaged(source: Any, tmp_path: Path) -> None:
    """A file that is cut off is rejected when it is opened."""
    described = source(X.astype(np.uint8), LABELS)
    path = tmp_path / "features.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is damaged"):
        Rows(described, IDENTITY, np.float32)


@pytest.mark.parametrize(
    ("scaling", "part"),
    [
        (FeatureScaling(shift=[0] * 5, factor=[1]), "1 shift or 6"),
        (FeatureScaling(shift=[0], factor=[]), "1 factor or 6"),
        (FeatureScaling(shift=[0], factor=[1e60]), "factor 1e.60 .* beyond float32"),
    ],
)
def test_scaling_that_does_not_fit(source: Any, scaling: FeatureScaling, part: str) -> None:
    """A scaling of another number of features, or beyond the type to compute with, is rejected."""
    with pytest.raises(ValueError, match=part):
        Rows(source(X.astype(np.uint8), LABELS), scaling, np.float32)
