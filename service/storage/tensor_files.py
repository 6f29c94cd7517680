"""Files of tensors in safetensors' format, written and read in pieces, so that none has to fit into memory.

    8 bytes          length of the header, little-endian
    header           JSON, padded with spaces to a multiple of 8 bytes
    tensors          float64 before float32, and by name; without gaps

The header is made here, because the library needs all tensors at once; the bytes are the same as the library's.
"""

import json
import math
import mmap
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from nablad.files import CHUNK_BYTES
from service.storage.digests import open_stored, sha256_of

__all__ = ["Tensor", "TensorFile", "TensorFileError", "TensorLayout", "open_intact"]

_NAMES: Final[Mapping[str, str]] = {"float32": "F32", "float64": "F64"}
_DTYPES: Final = {name: np.dtype(dtype) for dtype, name in _NAMES.items()}
_LENGTH_BYTES: Final = 8
_METADATA: Final = "__metadata__"


class TensorFileError(Exception):
    """A file cannot be used; the message is the predicate of a sentence about the file."""


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file.

    Attributes:
        dtype: float32 or float64.
        shape: Shape as in numpy.
        start: Offset in the file, in bytes.
    """

    dtype: np.dtype[np.floating]
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.size * self.dtype.itemsize


class TensorLayout:
    """Layout of a file that is to be written.

    Attributes:
        header: Bytes before the first tensor.
        tensors: Tensors by name, in the order of the file.
        size_bytes: Size of the whole file.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[np.dtype[np.floating], tuple[int, ...]]], metadata: Mapping[str, str]
    ) -> None:
        """Computes the layout of tensors of these types and shapes, by name."""
        end = 0
        tensors: dict[str, Tensor] = {}
        for name in sorted(shapes, key=lambda name: (-shapes[name][0].itemsize, name)):
            tensors[name] = Tensor(*shapes[name], end)
            end += tensors[name].nbytes
        self.header = _header(tensors, metadata)
        self.tensors = {
            name: Tensor(tensor.dtype, tensor.shape, len(self.header) + tensor.start)
            for name, tensor in tensors.items()
        }
        self.size_bytes = len(self.header) + end


class TensorFile:
    """An intact file that is open for reading.

    Attributes:
        metadata: Texts by name.
        tensors: Tensors by name.
    """

    def __init__(self, path: Path, sha256: str) -> None:
        """Opens the file, and reads it once to compare its digest.

        Args:
            path: The file.
            sha256: Expected digest in hexadecimal, because the format itself does not detect flipped bits.

        Raises:
            TensorFileError: The file cannot be read, is damaged, or has another format.
        """
        self._file = open_intact(path, sha256)
        try:
            self.metadata, self.tensors = _described(path, self._file)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; mapped tensors stay valid."""
        self._file.close()

    def pieces(self, name: str) -> Iterator[NDArray[np.floating]]:
        """Yields the numbers of a tensor in order, at most `CHUNK_BYTES` bytes at a time.

        Raises:
            TensorFileError: The file cannot be read.
        """
        tensor = self.tensors[name]
        most = CHUNK_BYTES // tensor.dtype.itemsize
        for first in range(0, tensor.size, most):
            yield self._read(tensor, first, min(most, tensor.size - first))

    def read(self, name: str) -> NDArray[np.floating]:
        """Returns the whole tensor, in memory that may be written to.

        Raises:
            TensorFileError: The file cannot be read.
        """
        tensor = self.tensors[name]
        return self._read(tensor, 0, tensor.size).reshape(tensor.shape)

    def map_tensors(self) -> dict[str, NDArray[np.floating]]:
        """Maps all tensors, by name, into read-only memory of the page cache, which the system may reclaim."""
        memory = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return {
            name: np.frombuffer(memory, tensor.dtype, tensor.size, tensor.start).reshape(tensor.shape)
            for name, tensor in self.tensors.items()
        }

    def _read(self, tensor: Tensor, first: int, count: int) -> NDArray[np.floating]:
        """Reads `count` numbers of a tensor, from number `first` on."""
        try:
            self._file.seek(tensor.start + first * tensor.dtype.itemsize)
            numbers = np.fromfile(self._file, tensor.dtype, count)
        except OSError as error:
            raise _unreadable(error) from error
        if numbers.size != count:
            raise TensorFileError("has become shorter while it was read")
        return numbers


def open_intact(path: Path, sha256: str) -> BinaryIO:
    """Opens a file, after it was read and compared with its digest.

    Raises:
        TensorFileError: The file is gone, cannot be read, or is damaged.
    """
    try:
        with ExitStack() as stack:
            file = stack.enter_context(open_stored(path))
            found = sha256_of([file])
            if found == sha256:
                file.seek(0)
                stack.pop_all()
                return file
    except OSError as error:
        raise _unreadable(error) from error
    raise TensorFileError(f"is damaged: it has SHA-256 {found}, but was written with {sha256}")


def _unreadable(error: OSError) -> TensorFileError:
    return TensorFileError(
        "is gone" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror or error}"
    )


def _header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Returns length and JSON, for tensors whose offsets are counted from the header's end."""
    entries: dict[str, Any] = {_METADATA: metadata}
    for name, tensor in tensors.items():
        place = [tensor.start, tensor.start + tensor.nbytes]
        entries[name] = {"dtype": _NAMES[tensor.dtype.name], "shape": tensor.shape, "data_offsets": place}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def _described(path: Path, file: BinaryIO) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Returns the metadata and the tensors of the header."""
    try:
        # The library checks the header: no gaps, and offsets that fit types, shapes and the file.
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        raise TensorFileError(f"is not a safetensors file: {error}") from error
    except OSError as error:
        raise _unreadable(error) from error
    try:
        file.seek(0)
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        entries = json.loads(file.read(length))
        metadata = entries.pop(_METADATA, None) or {}
        if unknown := {entry["dtype"] for entry in entries.values()} - _DTYPES.keys():
            raise TensorFileError(f"has tensors of type {min(unknown)}, but only {' and '.join(_DTYPES)} are read")
        start = _LENGTH_BYTES + length
        return metadata, {
            name: Tensor(_DTYPES[entry["dtype"]], tuple(entry["shape"]), start + entry["data_offsets"][0])
            for name, entry in entries.items()
        }
    except (ValueError, KeyError, RecursionError) as error:
        raise TensorFileError(f"has a header that cannot be read ({error!r})") from error
