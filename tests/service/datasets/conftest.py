"""Files of every format, and one call that stores them."""

import gzip
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nablad.v1.datasets_pb2 import DataFiles
from service.datasets import DatasetError, StagedFile, StoredData, store_dataset

_IDX_CODES = {"uint8": 8, "int8": 9, "int16": 11, "int32": 12, "float32": 13, "float64": 14}


@pytest.fixture(scope="session")
def idx_bytes() -> Callable[[NDArray[Any]], bytes]:
    """An array as an IDX file."""

    def encode(array: NDArray[Any]) -> bytes:
        header = struct.pack(f">BBBB{array.ndim}I", 0, 0, _IDX_CODES[array.dtype.name], array.ndim, *array.shape)
        return header + array.astype(array.dtype.newbyteorder(">")).tobytes()

    return encode


@pytest.fixture(scope="session")
def npy_bytes() -> Callable[..., bytes]:
    """An array as a .npy file."""

    def encode(array: NDArray[Any], **options: Any) -> bytes:
        stream = BytesIO()
        np.save(stream, array, **options)
        return stream.getvalue()

    return encode


@pytest.fixture(scope="session")
def npz_bytes() -> Callable[..., bytes]:
    """Arrays as an .npz file."""

    def encode(*, compressed: bool = False, **arrays: NDArray[Any]) -> bytes:
        stream = BytesIO()
        (np.savez_compressed if compressed else np.savez)(stream, **arrays)
        return stream.getvalue()

    return encode


@pytest.fixture(scope="session")
def gz() -> Callable[[bytes], bytes]:
    """Bytes, gzipped."""
    return lambda content: gzip.compress(content, 1)


@pytest.fixture
def staged(tmp_path: Path) -> Callable[..., list[StagedFile]]:
    """Spools files as the service does: under their numbers, whatever their names."""

    def stage(*files: tuple[str, bytes]) -> list[StagedFile]:
        folder = tmp_path / "staging"
        folder.mkdir(exist_ok=True)
        for number, (_, content) in enumerate(files):
            (folder / str(number)).write_bytes(content)
        return [StagedFile(filename, folder / str(number)) for number, (filename, _) in enumerate(files)]

    return stage


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the data set is stored; not there yet."""
    return tmp_path / "stored"


@pytest.fixture
def stored(
    staged: Callable[..., list[StagedFile]], directory: Path
) -> Callable[..., tuple[StoredData, NDArray[Any], NDArray[Any]]]:
    """Stores files, and reads back features and targets."""

    def run(*files: tuple[str, bytes], limit_bytes: int = 10**9, **options: Any) -> Any:
        data = store_dataset(staged(*files), DataFiles(**options), directory, limit_bytes)
        return data, np.load(directory / "features.npy"), np.load(directory / "targets.npy")

    return run


@pytest.fixture
def refused(staged: Callable[..., list[StagedFile]], directory: Path) -> Callable[..., str]:
    """Stores files that cannot be stored, sees that nothing is left, and returns the sentence."""

    def run(*files: tuple[str, bytes], limit_bytes: int = 10**9, **options: Any) -> str:
        with pytest.raises(DatasetError) as caught:
            store_dataset(staged(*files), DataFiles(**options), directory, limit_bytes)
        assert not directory.exists()
        sentence = str(caught.value)
        assert sentence.endswith(".")
        assert "\n" not in sentence
        return sentence

    return run
