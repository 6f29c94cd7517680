"""Whatever the bytes are, the answer is a data set or a `DatasetError`, never another exception."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nablad.v1.datasets_pb2 import DataFiles
from service.datasets import DatasetError, StagedFile, store_dataset

FILENAMES = st.sampled_from(["x.npz", "x.npy", "x-idx3-ubyte", "x-idx3-ubyte.gz", "x.csv", "x.csv.gz"])


def answered(*files: tuple[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        staged = []
        for number, (filename, content) in enumerate(files):
            path = Path(folder, str(number))
            path.write_bytes(content)
            staged.append(StagedFile(filename, path))
        directory = Path(folder, "stored")
        try:
            data = store_dataset(staged, DataFiles(), directory, limit_bytes=10**7)
        except DatasetError:
            assert not directory.exists()
        else:
            assert np.isfinite(np.load(directory / "features.npy", allow_pickle=False)).all()
            assert len(np.load(directory / "targets.npy", allow_pickle=False)) == data.rows


@settings(deadline=None)
@given(FILENAMES, st.binary(max_size=300))
def test_random_bytes(filename: str, content: bytes) -> None:
    """Random bytes under any name."""
    answered((filename, content))


@settings(deadline=None)
@given(st.text('0123456789.,;-+e"\n\t _xn', max_size=80))
def test_random_csv(text: str) -> None:
    """Random text made of what CSV files are made of."""
    answered(("x.csv", text.encode()))


@pytest.fixture(scope="module")
def whole(npy_bytes: Any, npz_bytes: Any, idx_bytes: Any, gz: Any) -> dict[str, bytes]:
    """A good file of every format, and targets for those that need a second file."""
    x, y = np.arange(12, dtype=np.uint8).reshape(4, 3), np.arange(4)
    return {
        "x.npz": npz_bytes(x=x, y=y),
        "z.npz": npz_bytes(compressed=True, x=x, y=y),
        "x.npy": npy_bytes(x),
        "x-idx3-ubyte.gz": gz(idx_bytes(x)),
        "x.csv.gz": gz(b"1,2,0\n3,4,1\n"),
        "y.npy": npy_bytes(y),
    }


@settings(deadline=None)
@given(st.data())
@pytest.mark.filterwarnings("ignore:Reading `.npy`")
def test_damaged_files(whole: dict[str, bytes], data: st.DataObject) -> None:
    """Good files with some of their bytes changed, cut out or doubled."""
    filename = data.draw(st.sampled_from(sorted(whole)[:-1]))
    content = bytearray(whole[filename])
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content) - 1))
        stop = data.draw(st.integers(start, min(len(content), start + 4)))
        content[start:stop] = data.draw(st.binary(max_size=4))
    targets = [] if filename.endswith((".npz", ".csv.gz")) else [("y.npy", whole["y.npy"])]
    answered((filename, bytes(content)), *targets)
