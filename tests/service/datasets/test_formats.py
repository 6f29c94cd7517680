"""What comes in is what is stored, whatever the format."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nablad.v1.datasets_pb2 import DataFiles
from service.datasets import store_dataset
from service.datasets.numpy_files import KEYS
from service.datasets.statistics import load_statistics

Bytes = Callable[..., bytes]
Stored = Callable[..., Any]

LABELS = np.array([0, 2, 1, 2, 0], np.uint8)


def features(dtype: str = "float64") -> NDArray[Any]:
    return (np.arange(30).reshape(5, 6) * 7 % 23).astype(dtype)


STORED_DTYPES = {
    "bool": "float32",
    "uint8": "uint8",
    "int8": "float32",
    "int16": "float32",
    "uint16": "float32",
    "float16": "float32",
    "float32": "float32",
    "int32": "float64",
    "uint32": "float64",
    "int64": "float64",
    "uint64": "float64",
    "float64": "float64",
    "longdouble": "float64",
}


@pytest.mark.parametrize(("dtype", "stored_as"), STORED_DTYPES.items())
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(stored: Stored, npy_bytes: Bytes, dtype: str, stored_as: str, order: Any) -> None:
    """A pair of .npy files of any real type and memory order keeps its numbers, in the documented type."""
    x = features(dtype)
    data, kept, targets = stored(("x.npy", npy_bytes(np.asarray(x, order=order))), ("y.npy", npy_bytes(LABELS)))
    assert data.feature_dtype == kept.dtype.name == stored_as
    assert kept.flags.c_contiguous
    np.testing.assert_array_equal(kept, x)
    np.testing.assert_array_equal(targets, LABELS)
    assert (data.rows, data.features, data.classes, data.target_columns) == (5, 6, 3, 0)
    assert targets.dtype == np.int64


def test_npy_other_forms(stored: Stored, npy_bytes: Bytes) -> None:
    """Big-endian numbers and more than two dimensions are read too; the dimensions after the first are flattened."""
    x = features().astype(">f4").reshape(5, 2, 3)
    data, kept, _ = stored(("x.NPY", npy_bytes(x)), ("y.npy", npy_bytes(LABELS.reshape(5, 1))))
    np.testing.assert_array_equal(kept, x.reshape(5, 6))
    assert data.feature_dtype == "float32"


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("names", [("x-idx3-ubyte", "y-idx1-ubyte"), ("x.idx.gz", "y.idx1.gz")])
def test_idx(stored: Stored, idx_bytes: Bytes, gz: Bytes, dtype: str, names: tuple[str, str]) -> None:
    """A pair of IDX files of any of their types, plain or gzipped, keeps its numbers."""
    x = features(dtype).reshape(5, 2, 3)
    pack = gz if names[0].endswith(".gz") else bytes
    _, kept, targets = stored((names[0], pack(idx_bytes(x))), (names[1], pack(idx_bytes(LABELS))))
    np.testing.assert_array_equal(kept, x.reshape(5, 6))
    np.testing.assert_array_equal(targets, LABELS)


@pytest.mark.parametrize(("x_key", "y_key"), KEYS.items())
@pytest.mark.parametrize("compressed", [False, True])
def test_npz(stored: Stored, npz_bytes: Bytes, x_key: str, y_key: str, compressed: bool) -> None:
    """An .npz, compressed or not, keeps its numbers under every accepted pair of names; others are passed over."""
    content = npz_bytes(
        compressed=compressed, **{x_key: features("uint8"), y_key: LABELS, "names": np.array(["a", "b"])}
    )
    _, kept, targets = stored(("set.npz", content))
    np.testing.assert_array_equal(kept, features("uint8"))
    np.testing.assert_array_equal(targets, LABELS)


def test_npz_without_names(stored: Stored, npz_bytes: Bytes, tmp_path: Path) -> None:
    """Arrays that were saved without names are features and targets in their order."""
    np.savez(tmp_path / "a.npz", features(), LABELS)
    _, kept, targets = stored(("a.npz", (tmp_path / "a.npz").read_bytes()))
    np.testing.assert_array_equal(kept, features())
    np.testing.assert_array_equal(targets, LABELS)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("header", ["a,b,c,d,e,f,label", "0,1,2,3,4,5,label", '"a","b b","c","d","e","f","g"', None])
@pytest.mark.parametrize("name", ["set.csv", "set.CSV.gz"])
def test_csv(stored: Stored, gz: Bytes, delimiter: str, header: str | None, name: str) -> None:
    """CSV keeps its numbers: any of the three delimiters, with a header line or none, gzipped or not."""
    lines = [",".join(map(repr, row)) for row in np.column_stack([features(), LABELS]).tolist()]
    text = "\n".join([header, *lines] if header else lines).replace(",", delimiter).encode()
    data, kept, targets = stored((name, gz(text) if name.endswith("gz") else text))
    assert data.feature_dtype == "float64"
    np.testing.assert_array_equal(kept, features())
    np.testing.assert_array_equal(targets, LABELS)


@pytest.mark.parametrize(
    "text",
    [
        b"1.5,2,0\r\n\r\n-3e2,4,1\r\n",
        b"\xef\xbb\xbf1.5,2,0\n   \n-3e2,4,1\n\n",
        b'"1.5", 2 ,0\n-3e2,"4",1',
    ],
)
def test_csv_forms(stored: Stored, text: bytes) -> None:
    """Line ends of any system, blank lines, a byte order mark, quotes and spaces change nothing."""
    _, kept, targets = stored(("set.csv", text))
    assert kept.tolist() == [[1.5, 2.0], [-300.0, 4.0]]
    assert targets.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("column", "left"),
    [("", [[1, 2], [4, 5]]), ("b", [[1, 3], [4, 6]]), ("0", [[2, 3], [5, 6]]), ("2", [[1, 2], [4, 5]])],
)
def test_csv_target_column(stored: Stored, column: str, left: list[list[float]]) -> None:
    """The target is the last column, or the one of the given name or number; all others are features."""
    _, kept, targets = stored(("set.csv", b"a,b,c\n1,2,3\n4,5,6\n"), target_column=column)
    assert kept.tolist() == left
    assert sorted(np.column_stack([kept, targets]).ravel().tolist()) == [1, 2, 3, 4, 5, 6]


def test_formats_agree(staged: Any, idx_bytes: Bytes, npy_bytes: Bytes, npz_bytes: Bytes, tmp_path: Path) -> None:
    """The same numbers give the same stored bytes, the same digest and the same statistics in every binary format."""
    x, y = features("uint8"), LABELS
    ways = [
        [("x-idx2-ubyte", idx_bytes(x)), ("y-idx1-ubyte", idx_bytes(y))],
        [("x.npy", npy_bytes(x)), ("y.npy", npy_bytes(y))],
        [("x.npz", npz_bytes(x=x, y=y))],
        [("x.npy", npy_bytes(x)), ("y-idx1-ubyte", idx_bytes(y))],
    ]
    results = [
        store_dataset(staged(*files), DataFiles(), tmp_path / f"stored-{number}") for number, files in enumerate(ways)
    ]
    assert len(set(results)) == 1
    whole = b"".join((tmp_path / "stored-0" / f"{part}.npy").read_bytes() for part in ("features", "targets"))
    assert results[0].sha256 == hashlib.sha256(whole).hexdigest()
    assert results[0].size_bytes == len(whole)
    assert len({load_statistics(tmp_path / f"stored-{number}").mean.tobytes() for number in range(len(ways))}) == 1


def test_only_the_stored_form_is_left(stored: Stored, npz_bytes: Bytes, directory: Path) -> None:
    """Nothing that was unpacked or converted on the way is left in the directory."""
    stored(("x.npz", npz_bytes(x=features(), y=LABELS)))
    assert sorted(path.name for path in directory.iterdir()) == ["features.npy", "statistics.npz", "targets.npy"]


def test_many_blocks(stored: Stored, npy_bytes: Bytes) -> None:
    """Rows keep their order and their targets over the ends of blocks."""
    x = np.arange(3 * 2**17 + 5, dtype=np.float64).reshape(-1, 1).repeat(2, axis=1)
    y = np.arange(len(x)) % 7
    _, kept, targets = stored(("x.npy", npy_bytes(x)), ("y.npy", npy_bytes(y)))
    np.testing.assert_array_equal(kept, x)
    np.testing.assert_array_equal(targets, y)


MNIST = Path(__file__).parents[4] / "shared" / "data" / "mnist"


@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST is not beside the repository")
def test_mnist(stored: Stored) -> None:
    """The files of MNIST become 10,000 rows of 784 pixels with ten classes; the first digit is a 7."""
    names = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
    data, kept, targets = stored(*((name, (MNIST / name).read_bytes()) for name in names))
    assert (data.rows, data.features, data.classes, data.feature_dtype) == (10_000, 784, 10, "uint8")
    assert targets[:4].tolist() == [7, 2, 1, 0]
    assert (int(kept.min()), int(kept.max())) == (0, 255)
