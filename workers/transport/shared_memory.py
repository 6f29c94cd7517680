"""Memory that the processes of one host share.

It has no name in any file system: its open file is passed over a Unix socket. The kernel frees it with the last process
that has it open, however that one ends, so there is nothing to clean up.
"""

import fcntl
import mmap
import os
import secrets
import weakref
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["PROBE_BYTES", "SharedMemory", "vectors_bytes"]

PROBE_BYTES = 16
"""Least size, in bytes, of memory that can be probed."""

# Vectors behind the first one begin where a cache line does.
_ALIGNMENT = 64

# Whoever has the file may neither shrink it under those who have mapped it, nor grow it, nor remove these seals.
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
# Of Linux 5.1; Python has a name for it from 3.13 on. Existing mappings stay writable.
_SEAL_FUTURE_WRITE = 0x0010


def vectors_bytes(dtype: DTypeLike, size: int, count: int) -> int:
    """Returns the size, in bytes, of memory for `count` vectors of `size` numbers; it can be probed."""
    return max((count - 1) * _stride(dtype, size) + np.dtype(dtype).itemsize * size, PROBE_BYTES)


def _stride(dtype: DTypeLike, size: int) -> int:
    return -(-np.dtype(dtype).itemsize * size // _ALIGNMENT) * _ALIGNMENT


class SharedMemory:
    """Shared memory, mapped into this process.

    Attributes:
        size: In bytes.
    """

    def __init__(self, file: int, size: int, *, writable: bool) -> None:
        """Maps the memory behind an open file, which it owns from now on.

        Raises:
            ValueError: The memory is smaller than `size`.
            OSError: It cannot be mapped, or not for writing.
        """
        self._file = file
        self.size = size
        weakref.finalize(self, os.close, file)
        self._map = mmap.mmap(file, size, prot=mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0))

    @classmethod
    def create(cls, name: str, size: int, *, others_may_write: bool) -> "SharedMemory":
        """Creates memory that this process may write to, and other processes only if they may.

        Args:
            name: Shown in /proc/PID/maps.
            size: In bytes, above 0.
            others_may_write: Whether processes that receive the file may map it for writing.

        Raises:
            OSError: The system has no such memory.
        """
        file = os.memfd_create(f"nablad-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.fchmod(file, 0o600)
        os.ftruncate(file, size)
        memory = cls(file, size, writable=True)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS | (0 if others_may_write else _SEAL_FUTURE_WRITE))
        return memory

    def fileno(self) -> int:
        """Returns the open file, to pass to another process."""
        return self._file

    def vector(self, dtype: DTypeLike, size: int, offset: int = 0) -> NDArray[Any]:
        """Returns `size` numbers from an offset in bytes; read-only where the mapping is.

        The vector keeps the mapping alive.
        """
        return np.frombuffer(self._map, dtype, size, offset)

    def vectors(self, dtype: DTypeLike, size: int, count: int) -> tuple[NDArray[np.floating], ...]:
        """Returns `count` vectors of `size` numbers, one behind the other, as `vector`; see `vectors_bytes`."""
        stride = _stride(dtype, size)
        return tuple(np.frombuffer(self._map, dtype, size, number * stride) for number in range(count))

    def write_challenge(self) -> bytes:
        """Writes random bytes, and returns their right answer: a probe that memory is truly shared."""
        question = secrets.token_bytes(PROBE_BYTES)
        self._map[:PROBE_BYTES] = question
        return _inverted(question)

    def answer_challenge(self) -> None:
        """Answers a challenge that the process at the other end has written."""
        self._map[:PROBE_BYTES] = _inverted(self._map[:PROBE_BYTES])

    def has_answer(self, answer: bytes) -> bool:
        """Returns whether the memory begins with this answer."""
        return self._map[:PROBE_BYTES] == answer


def _inverted(data: bytes) -> bytes:
    return bytes(byte ^ 0xFF for byte in data)
