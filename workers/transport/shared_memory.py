"""Memory that the processes of one host share.

A region has no name in any file system: it is handed over as an open file over a Unix socket, and is gone with the last
process that has it, however that one ends. Nothing is left to sweep.
"""

import fcntl
import mmap
import os
import secrets
import weakref

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["PROBE_BYTES", "SharedMemory"]

PROBE_BYTES = 16
"""The least size of a region that can be probed."""

# Who has the file may neither shrink it under those who have mapped it, nor grow it, nor take this back.
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
# Of Linux 5.1; Python names it from 3.13 on. Mappings that are there stay writable.
_SEAL_FUTURE_WRITE = 0x0010


class SharedMemory:
    """A piece of shared memory, mapped into this process.

    Attributes:
        size: In bytes.
    """

    def __init__(self, file: int, size: int, *, writable: bool) -> None:
        """Maps the region behind an open file, which is taken over.

        Raises:
            ValueError: The region is smaller than `size`.
            OSError: It cannot be mapped, or not for writing.
        """
        self._file = file
        self.size = size
        weakref.finalize(self, os.close, file)
        self._map = mmap.mmap(file, size, prot=mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0))

    @classmethod
    def create(cls, name: str, size: int, *, others_may_write: bool) -> "SharedMemory":
        """A new region that the process may write to, and others only if they may.

        Args:
            name: Shown in /proc/PID/maps.
            size: In bytes, above 0.
            others_may_write: Whether those that it is handed to may map it for writing.

        Raises:
            OSError: The system has no such memory.
        """
        file = os.memfd_create(f"nablad-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.fchmod(file, 0o600)
        os.ftruncate(file, size)
        region = cls(file, size, writable=True)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS | (0 if others_may_write else _SEAL_FUTURE_WRITE))
        return region

    def fileno(self) -> int:
        """The open file, to hand over."""
        return self._file

    def vector(self, dtype: DTypeLike, size: int) -> NDArray[np.floating]:
        """The first `size` numbers of the region; read-only where the mapping is. The vector keeps the mapping."""
        return np.frombuffer(self._map, dtype, size)

    def challenge(self) -> bytes:
        """Writes something at random, and gives what `answer` makes of it: a probe whether memory is truly shared."""
        question = secrets.token_bytes(PROBE_BYTES)
        self._map[:PROBE_BYTES] = question
        return _inverted(question)

    def answer(self) -> None:
        """Answers a challenge that was written by the process at the other end."""
        self._map[:PROBE_BYTES] = _inverted(self._map[:PROBE_BYTES])

    def says(self, answer: bytes) -> bool:
        """Whether the region begins with this answer."""
        return self._map[:PROBE_BYTES] == answer


def _inverted(data: bytes) -> bytes:
    return bytes(byte ^ 0xFF for byte in data)
