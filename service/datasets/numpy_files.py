"""NumPy files: reading .npy files and .npz archives, writing .npy files.

No header is trusted: before any memory or disk is used, the array's size is compared with the length of the file or of
the archive's member. Pickled objects are rejected.
"""

import io
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.datasets.limits import check_room, check_shape, shape_text
from service.datasets.staged_files import DatasetError, StagedFile, quoted

#: Names of features and targets in an .npz. ``np.savez(file, features, targets)`` writes the last pair.
KEYS = {
    "x": "y",
    "X": "y",
    "features": "targets",
    "data": "target",
    "images": "labels",
    "x_train": "y_train",
    "x_test": "y_test",
    "arr_0": "arr_1",
}

_COPY_BYTES = 2**20
#: Largest read from an archive. `zipfile` reads the whole list of members at once.
_READ_BYTES = 2**22
#: Errors of reading a wrong header, which NumPy passes to Python's parser.
_HEADER_ERRORS = (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError, EOFError)
#: Errors of `zipfile` for damaged, encrypted or forged archives.
_ARCHIVE_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OverflowError, RuntimeError, ValueError)


class NpyFile:
    """One array in a .npy file, memory-mapped; see `Source`.

    Args:
        name: Name of the file, as messages show it.
        path: Path of the file.

    Raises:
        DatasetError: It is not a .npy file of real numbers, or its length is not that of its header.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        with path.open("rb") as stream:
            self.shape, fortran_order, self.dtype = _header(name, stream)
            offset = stream.tell()
        _check_length(name, self.shape, self.dtype, path.stat().st_size - offset)
        check_shape(name, self.shape)
        order: Literal["F", "C"] = "F" if fortran_order else "C"
        self._array = np.memmap(path, self.dtype, mode="r", offset=offset, shape=self.shape, order=order)

    def blocks(self, rows: int) -> Iterator[NDArray[Any]]:
        """See `Source.blocks`."""
        for start in range(0, self.shape[0], rows):
            yield self._array[start : start + rows]


@contextmanager
def npy_writer(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Opens a new .npy file for an array of that type and shape, in C order, to be written block by block.

    Writes with write(2) and not through a memory map: on a full disk the one raises `OSError`, the other kills the
    process.

    Yields:
        A function that appends the next rows, of exactly that type.
    """
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with path.open("xb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)

        def append(block: NDArray[Any]) -> None:
            stream.write(np.ascontiguousarray(block).data)

        yield append


def open_npz(
    file: StagedFile, directory: Path, limit_bytes: int, targets_required: bool
) -> tuple[NpyFile, NpyFile | None]:
    """Opens features and, if there are any, targets of an .npz.

    Args:
        file: The archive.
        directory: An empty directory, into which the arrays are unpacked to be memory-mapped.
        limit_bytes: Largest size of both together, in bytes.
        targets_required: Whether features alone are rejected.

    Raises:
        DatasetError: It is not an archive as NumPy writes it, or has not exactly one pair of `KEYS`.
        DatasetTooLargeError: The arrays are larger than the limit or the disk.
    """
    with _archive(file) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        chosen = [members[key] for key in _choose(file.name, list(members), targets_required)]
        check_room(file.name, sum(member.file_size for member in chosen), directory, limit_bytes)
        features = _unpack(file.name, archive, chosen[0], directory / "features.npy")
        targets = _unpack(file.name, archive, chosen[1], directory / "targets.npy") if len(chosen) > 1 else None
    return features, targets


def _choose(name: str, keys: list[str], targets_required: bool) -> list[str]:
    """Returns the names of features and targets among ``keys``, or of the features alone."""
    pairs = [[x, y] for x, y in KEYS.items() if x in keys and y in keys]
    if not targets_required and not pairs:
        pairs = [[x] for x in KEYS if x in keys]
    if len(pairs) == 1:
        return pairs[0]
    held = ", ".join(quoted(key, 30) for key in sorted(keys)[:20]) or "nothing"
    wanted = ", ".join(f"{x}/{y}" for x, y in KEYS.items())
    raise DatasetError(
        f"{name} holds {held}, but exactly one pair of features and targets is expected under the names {wanted}; "
        f"save the arrays that are meant as x and y."
    )


def _unpack(name: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> NpyFile:
    """Unpacks one member, whose size must be that of its header."""
    member_name = f"{quoted(member.filename)} in {name}"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DatasetError(f"{member_name} is packed in a way that NumPy does not use; save it with numpy.savez.")
    with archive.open(member) as stream:
        shape, _, dtype = _header(member_name, stream)
        _check_length(member_name, shape, dtype, member.file_size - stream.tell())
    with archive.open(member) as stream, path.open("xb") as copy:
        while part := stream.read(_COPY_BYTES):
            copy.write(part)
    return NpyFile(member_name, path)


@contextmanager
def _archive(file: StagedFile) -> Iterator[zipfile.ZipFile]:
    """Opens an archive, and translates errors of reading it into `DatasetError`."""
    try:
        with _BoundedFile(file.path) as stream, zipfile.ZipFile(stream) as archive:
            yield archive
    except DatasetError:  # It is a ValueError too, and needs no translation.
        raise
    except _ARCHIVE_ERRORS as error:
        raise DatasetError(
            f"{file.name} is not a whole .npz archive ({quoted(str(error))}); copy it again, "
            f"or save it with numpy.savez."
        ) from error


class _BoundedFile(io.FileIO):
    """File that rejects reads which only a forged list of members causes: too large, or before the beginning."""

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence == os.SEEK_SET and offset < 0:
            raise ValueError("its list of members points before its beginning")
        return super().seek(offset, whence)

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _READ_BYTES:
            raise ValueError(f"its list of members takes {size:,} bytes")
        return super().read(size if size is not None else -1)


def _header(name: str, stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Returns shape, whether in Fortran order, and dtype, from the header of a .npy file.

    Raises:
        DatasetError: It is no such header, or not one of real numbers.
    """
    try:
        version = np.lib.format.read_magic(stream)
        # Later versions differ from 2.0 only in the alphabet of field names, and an array of numbers has none.
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = read(stream)
    except _HEADER_ERRORS as error:
        raise DatasetError(f"{name} does not start with the header of a .npy file; save it with numpy.save.") from error
    if dtype.hasobject:
        raise DatasetError(
            f"{name} holds pickled Python objects, which could run code when they are read; save plain numbers."
        )
    if dtype.kind not in "biuf" or any(length < 0 for length in shape):
        raise DatasetError(f"{name} holds {shape_text(shape)} items of type {quoted(str(dtype))}; save real numbers.")
    return shape, fortran_order, dtype


def _check_length(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], came_bytes: int) -> None:
    """Rejects an array if ``came_bytes``, the bytes after the header, are not those that the header promises."""
    promised_bytes = math.prod(shape) * dtype.itemsize
    promise = f"its header promises {shape_text(shape)} numbers of type {dtype} ({promised_bytes:,} bytes)"
    if came_bytes < promised_bytes:
        raise DatasetError(f"{name} is truncated: {promise}, but only {came_bytes:,} follow; copy it again.")
    if came_bytes > promised_bytes:
        raise DatasetError(f"{name} is damaged: {promise}, but {came_bytes:,} follow; copy it again.")
