"""Reserve: room on the disk that is kept for writes that free room or stop work."""

import asyncio
import errno
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

__all__ = ["RESERVE_BYTES", "Reserve", "is_full_disk"]

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

RESERVE_BYTES: Final = 16 << 20
"""Size of the reserve in bytes: twice the database's log (about 4 MiB), the growth of the database when the log is
emptied, and a few hundred commands while it cannot be emptied."""

# Room that is released at a time, because other writers on the disk may take it.
_SLICE_BYTES: Final = 1 << 20
_SMALLEST_BYTES: Final = 16 << 10

_REFILL_SECONDS: Final = 5.0

# SHMSIZE: the index of the log could not grow.
_FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})


def is_full_disk(error: BaseException) -> bool:
    """Returns whether an error of SQLite or of the operating system says that the disk, or a quota of it, is full."""
    if isinstance(error, sqlite3.Error):
        # Errors of the module itself have no error code.
        return getattr(error, "sqlite_errorcode", None) in _FULL
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _may_need_room(error: BaseException) -> bool:
    """Returns whether more room may help; SQLite reports an exhausted quota and a failing disk as the same error."""
    return is_full_disk(error) or getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_WRITE


class Reserve:
    """File that occupies room while the disk has some, and releases it for single writes when the disk is full.

    Belongs to one thread.
    """

    def __init__(self, path: Path, size_bytes: int = RESERVE_BYTES) -> None:
        """Occupies its room, or as much of it as there is.

        Args:
            path: The file, on the disk that the writes go to.
            size_bytes: Size of the full reserve, in bytes.
        """
        self._path = path
        self._size_bytes = size_bytes
        self._whole = True
        self._failure = ""
        self.refill()

    def run_with_reserve(self, write: Callable[[], _Result]) -> _Result:
        """Calls `write`, and repeats it with more of the reserve released while the disk is full.

        Room that it did not use is occupied again at once.

        Args:
            write: Makes all of its changes, or none.

        Returns:
            The result of `write`.

        Raises:
            OSError, sqlite3.Error: As `write` raises them; those of a full disk once the reserve is used up.
        """
        spent = False
        try:
            while True:
                try:
                    return write()
                except (OSError, sqlite3.Error) as error:
                    if not _may_need_room(error) or not self._release_slice():
                        raise
                    spent = True
        finally:
            if spent:
                self.refill()

    def refill(self) -> None:
        """Occupies room up to the full size, as far as there is any."""
        try:
            with self._opened() as descriptor:
                self._log_change(whole=self._grow(descriptor))
        except OSError as error:
            self._log_failure(error)

    async def keep_filled(self) -> None:
        """Refills the reserve every few seconds, until cancelled."""
        while True:
            self.refill()
            await asyncio.sleep(_REFILL_SECONDS)

    def _grow(self, descriptor: int) -> bool:
        step = _SLICE_BYTES
        while (held := os.fstat(descriptor).st_size) < self._size_bytes:
            try:
                os.posix_fallocate(descriptor, held, min(step, self._size_bytes - held))
            except OSError as error:
                if not is_full_disk(error):
                    raise
                step //= 4
                if step < _SMALLEST_BYTES:
                    return False
        return True

    def _release_slice(self) -> bool:
        """Releases a part of the reserve; returns False if there was none left."""
        try:
            with self._opened() as descriptor:
                held = os.fstat(descriptor).st_size
                if not held:
                    return False
                os.ftruncate(descriptor, max(held - _SLICE_BYTES, 0))
                # Journaling file systems make the room available only after this.
                os.fsync(descriptor)
        except OSError as error:
            self._log_failure(error)
            return False
        self._log_change(whole=False)
        return True

    def _log_change(self, *, whole: bool) -> None:
        """Logs when the reserve is used for the first time, and when it is full again."""
        if self._whole and not whole:
            _log.warning("the disk is full: what frees room or stops work lives on the reserve from now on; make room")
        elif whole and not self._whole:
            _log.info("the reserve on the disk has its %s bytes again", f"{self._size_bytes:,}")
        self._whole, self._failure = whole, ""

    def _log_failure(self, error: OSError) -> None:
        """Logs once that there is no reserve."""
        if str(error) != self._failure:
            self._failure = str(error)
            _log.warning("no room can be kept for a full disk: %s", error)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
