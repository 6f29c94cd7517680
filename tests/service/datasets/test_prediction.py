"""Rows that a model is to predict: features alone, or with targets to compare with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nablad.v1.datasets_pb2 import DataFiles
from service.datasets import DatasetError, StoredData, read_for_prediction

X = np.arange(12, dtype=np.float64).reshape(4, 3)
Y = np.array([0, 1, 0, 1])


@pytest.fixture
def files(idx_bytes: Any, npy_bytes: Any, npz_bytes: Any) -> dict[str, list[tuple[str, bytes]]]:
    """X, with and without Y, in every format."""
    table = np.column_stack([X, Y]).astype(int).tolist()
    return {
        "npy": [("x.npy", npy_bytes(X))],
        "npy+": [("x.npy", npy_bytes(X)), ("y.npy", npy_bytes(Y))],
        "idx": [("x.idx", idx_bytes(X))],
        "idx+": [("x.idx", idx_bytes(X)), ("y.idx", idx_bytes(Y.astype(np.uint8)))],
        "npz": [("x.npz", npz_bytes(features=X, names=Y))],
        "npz+": [("x.npz", npz_bytes(features=X, targets=Y))],
        "csv": [("x.csv", "\n".join(",".join(map(str, row[:3])) for row in table).encode())],
        "csv+": [("x.csv", "\n".join(",".join(map(str, row)) for row in table).encode())],
    }


@pytest.fixture
def read(staged: Any, directory: Path) -> Callable[..., StoredData]:
    def run(files: list[tuple[str, bytes]], features: int = 3, **options: Any) -> StoredData:
        return read_for_prediction(staged(*files), DataFiles(**options), directory, features)

    return run


@pytest.mark.parametrize("name", ["npy", "idx", "npz", "csv"])
def test_features_alone(read: Any, files: Any, directory: Path, name: str) -> None:
    """Features alone are read in every format, and their targets have no columns."""
    data = read(files[name])
    assert not data.has_targets
    assert (data.rows, data.features, data.classes, data.target_columns) == (4, 3, 0, 0)
    np.testing.assert_array_equal(np.load(directory / "features.npy"), X)
    assert np.load(directory / "targets.npy").shape == (4, 0)


@pytest.mark.parametrize("name", ["npy+", "idx+", "npz+", "csv+"])
def test_with_targets(read: Any, files: Any, directory: Path, name: str) -> None:
    """Targets are read in every format, if they are there."""
    data = read(files[name], classes=10)
    assert data.has_targets
    assert data.classes == 10
    np.testing.assert_array_equal(np.load(directory / "features.npy"), X)
    np.testing.assert_array_equal(np.load(directory / "targets.npy"), Y)


def test_target_column(read: Any, directory: Path) -> None:
    """A named target column counts only in a file that has room for it."""
    read([("x.csv", b"y,a,b\n1,2,3\n")], features=2, target_column="y")
    assert np.load(directory / "features.npy").tolist() == [[2, 3]]
    assert np.load(directory / "targets.npy").tolist() == [1]


@pytest.mark.parametrize("name", ["npy", "npy+", "idx", "npz", "csv"])
def test_other_features(read: Any, files: Any, directory: Path, name: str) -> None:
    """Rows with another number of features than the model takes are refused, and nothing is kept."""
    with pytest.raises(DatasetError, match="but the model takes 5"):
        read(files[name], features=5)
    assert not directory.exists()
