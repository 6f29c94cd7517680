"""Lock of a data directory: one live daemon at a time, even if files in it are removed."""

import errno
import fcntl
import logging
import os
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Final

__all__ = ["DirectoryLock", "InUseError"]

_log = logging.getLogger(__name__)

# Largest part of the lock file that is read.
_MOST_BYTES: Final = 200
# Errors of file systems that cannot lock directories; NFS locks only files that are open for writing.
_NO_LOCKS_OF_DIRECTORIES: Final = frozenset(
    {errno.EBADF, errno.EISDIR, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}
)


class InUseError(Exception):
    """Another process has the lock; the message says which, if it is known."""


class DirectoryLock:
    """Locks of a directory and of the file ``lock`` in it, which names the process that holds them.

    The file can be replaced while it is locked, the directory cannot. Where a file system cannot lock directories, the
    lock of the file has to suffice. Both locks end with the process, because its children do not inherit them.
    """

    def __init__(self, path: Path) -> None:
        """Takes the locks.

        Args:
            path: The directory.

        Raises:
            InUseError: Another process has one of them.
            OSError: There is no such directory, or it cannot be locked.
        """
        self._file = path / "lock"
        with ExitStack() as locks:
            self._lock_directory(path, locks)
            _name_this_process(self._lock_file(locks))
            self._locks = locks.pop_all()

    def close(self) -> None:
        """Releases the locks."""
        self._locks.close()

    def _lock_directory(self, path: Path, locks: ExitStack) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        locks.callback(os.close, descriptor)
        try:
            self._lock(descriptor)
        except OSError as error:
            if error.errno not in _NO_LOCKS_OF_DIRECTORIES:
                raise
            _log.info("%s cannot be locked itself (%s): do not remove the file `lock` in it", path, error.strerror)

    def _lock_file(self, locks: ExitStack) -> int:
        """Returns the descriptor of the locked file."""
        while True:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600)
            with ExitStack() as attempt:
                attempt.callback(os.close, descriptor)
                self._lock(descriptor)
                # A file that was removed since it was opened locks nothing.
                if _is_same(descriptor, self._file):
                    locks.push(attempt.pop_all())
                    return descriptor

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InUseError(self._other()) from error

    def _other(self) -> str:
        try:
            with self._file.open("rb") as file:
                name = file.read(_MOST_BYTES).decode("utf-8", "replace").strip()
        except OSError:  # removed or not readable: the lock holds without the name
            name = ""
        return f"another nablad ({name}) uses it" if name else "another nablad uses it"


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _name_this_process(descriptor: int) -> None:
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    except OSError as error:  # a full disk must not prevent the start
        _log.warning("the lock file cannot name this process: %s", error)
