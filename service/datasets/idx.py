"""IDX files, the format of MNIST (http://yann.lecun.com/exdb/mnist), plain or gzipped.

A magic number of four bytes (0, 0, the type of the numbers, the number of dimensions), the length of each dimension
as a big-endian uint32, then the numbers, big-endian and row by row.
"""

import math
import re
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.datasets.limits import check_shape, shape_text
from service.datasets.staged_files import DatasetError, StagedFile, open_inflated

#: Types of the numbers, by the third byte of the magic number.
TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
#: Names of IDX files, such as train-images-idx3-ubyte.gz, digits.idx, labels.idx1.
FILENAME = re.compile(r".*[.-]idx\d*(-\w+)?(\.gz)?", re.IGNORECASE | re.DOTALL)


class IdxFile:
    """One IDX file; see `Source`.

    Raises:
        DatasetError: It is not an IDX file, or its length is not that of its header. The length of a gzipped file is
            checked at the end of `blocks`.
    """

    def __init__(self, file: StagedFile) -> None:
        self.name = file.name
        self._file = file
        with open_inflated(self._file) as stream:
            self.dtype, self.shape = self._header(stream)
            self._header_bytes = 4 + 4 * len(self.shape)
        check_shape(self.name, self.shape)
        self._promised_bytes = math.prod(self.shape) * self.dtype.itemsize
        if not file.filename.lower().endswith(".gz"):
            self._require_length(file.path.stat().st_size - self._header_bytes)

    def blocks(self, rows: int) -> Iterator[NDArray[Any]]:
        """See `Source.blocks`."""
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        with open_inflated(self._file) as stream:
            _fill(stream, memoryview(bytearray(self._header_bytes)))
            for start in range(0, self.shape[0], rows):
                count = min(rows, self.shape[0] - start)
                data = bytearray(count * row_bytes)
                came = _fill(stream, memoryview(data))
                if came < len(data):
                    self._require_length(start * row_bytes + came)
                yield np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])
            self._require_length(self._promised_bytes + len(stream.read1(1)))

    def _header(self, stream: BufferedIOBase) -> tuple[np.dtype[Any], tuple[int, ...]]:
        magic = self._header_part(stream, 4)
        if magic[:2] != b"\0\0" or magic[2] not in TYPES or magic[3] == 0:
            raise DatasetError(
                f"{self.name} is not an IDX file: it should start with the bytes 00 00, a type (08 to 0e) and a number "
                f"of dimensions, but starts with {magic.hex(' ')}; give an IDX file, or name it after its format."
            )
        lengths = np.frombuffer(self._header_part(stream, 4 * magic[3]), ">u4")
        return np.dtype(TYPES[magic[2]]), tuple(int(length) for length in lengths)

    def _header_part(self, stream: BufferedIOBase, count: int) -> bytes:
        part = bytearray(count)
        if _fill(stream, memoryview(part)) < count:
            raise DatasetError(f"{self.name} is truncated: it ends within the header of an IDX file; copy it again.")
        return bytes(part)

    def _require_length(self, came_bytes: int) -> None:
        promise = f"its header promises {shape_text(self.shape)} numbers of {self.dtype.itemsize * 8} bits"
        if came_bytes < self._promised_bytes:
            raise DatasetError(
                f"{self.name} is truncated: {promise} ({self._promised_bytes:,} bytes), but the file ends after "
                f"{came_bytes:,}; copy it again."
            )
        if came_bytes > self._promised_bytes:
            raise DatasetError(
                f"{self.name} is damaged: {promise} ({self._promised_bytes:,} bytes), but more bytes follow; "
                f"copy it again."
            )


def _fill(stream: BufferedIOBase, target: memoryview) -> int:
    """Reads until ``target`` is full or the file ends. Returns the number of bytes read.

    It reads in small parts, because a gzip stream that breaks off raises only at the read after its last good byte.
    """
    filled = 0
    while filled < len(target):
        try:
            part = stream.read1(min(len(target) - filled, 2**17))
        except EOFError:
            break
        if not part:
            break
        target[filled : filled + len(part)] = part
        filled += len(part)
    return filled
