"""Room on the disk that is kept for what frees room or stops work."""

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
"""Size of the reserve: twice the database's log, which is emptied when it has some 4 MiB, and what that adds to the
database; and room for a few hundred commands while it cannot be emptied."""

# As much is given up at a time: whatever else fills the disk gets no more of it at once.
_SLICE_BYTES: Final = 1 << 20
_SMALLEST_BYTES: Final = 16 << 10

_REFILL_SECONDS: Final = 5.0

# The second: the index of the log could not grow.
_FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})


def is_full_disk(error: BaseException) -> bool:
    """Returns whether an error of SQLite or of the operating system says that the disk, or a quota of it, is full."""
    if isinstance(error, sqlite3.Error):
        # Errors of the module itself have no code.
        return getattr(error, "sqlite_errorcode", None) in _FULL
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _may_need_room(error: BaseException) -> bool:
    """Returns whether more room may help: SQLite does not tell a quota that is used up from a disk that fails."""
    return is_full_disk(error) or getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_WRITE


class Reserve:
    """File that takes room while there is some, and gives it up for single writes when there is none left.

    Belongs to one thread.
    """

    def __init__(self, path: Path, size_bytes: int = RESERVE_BYTES) -> None:
        """Takes its room, or as much of it as there is.

        Args:
            path: The file, on the disk that the writes go to.
            size_bytes: How much room it is to have.
        """
        self._path = path
        self._size_bytes = size_bytes
        self._whole = True
        self._failure = ""
        self.refill()

    def run_with_reserve(self, write: Callable[[], _Result]) -> _Result:
        """Calls `write`, again and again with more of the reserve given up for as long as it finds the disk full.

        What it did not use is taken back at once.

        Args:
            write: Changes everything that it is to change, or nothing.

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
                    if not _may_need_room(error) or not self._give_up_slice():
                        raise
                    spent = True
        finally:
            if spent:
                self.refill()

    def refill(self) -> None:
        """Takes room until it has its size again, as far as there is any."""
        try:
            with self._opened() as descriptor:
                self._note(whole=self._grow(descriptor))
        except OSError as error:
            self._complain(error)

    async def keep_filled(self) -> None:
        """Refills it every few seconds, until cancelled."""
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

    def _give_up_slice(self) -> bool:
        """Returns whether there was anything left to give up."""
        try:
            with self._opened() as descriptor:
                held = os.fstat(descriptor).st_size
                if not held:
                    return False
                os.ftruncate(descriptor, max(held - _SLICE_BYTES, 0))
                # Journaling file systems hand freed room out only when this is on the disk.
                os.fsync(descriptor)
        except OSError as error:
            self._complain(error)
            return False
        self._note(whole=False)
        return True

    def _note(self, *, whole: bool) -> None:
        """Says when the reserve begins to be used, and when it is whole again."""
        if self._whole and not whole:
            _log.warning("the disk is full: what frees room or stops work lives on the reserve from now on; make room")
        elif whole and not self._whole:
            _log.info("the reserve on the disk has its %s bytes again", f"{self._size_bytes:,}")
        self._whole, self._failure = whole, ""

    def _complain(self, error: OSError) -> None:
        """Says once that there is no reserve."""
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
