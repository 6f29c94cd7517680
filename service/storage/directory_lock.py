"""The lock of a data directory: one live daemon at a time, whatever becomes of the files in it."""

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

# Of what another daemon wrote about itself.
_MOST_BYTES: Final = 200
# Of a file system that locks only files that are open for writing, as NFS, or no directories at all.
_NO_LOCKS_OF_DIRECTORIES: Final = frozenset(
    {errno.EBADF, errno.EISDIR, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}
)


class InUseError(Exception):
    """Another process has the lock; the message says which, if it is known."""


class DirectoryLock:
    """Locks of a directory and of the file ``lock`` in it, which names the process that has them.

    The directory itself cannot be replaced under the process, as the file can. Where a file system cannot lock
    directories, the file has to do. Both locks end with the process: those that it starts do not inherit them.
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
        """Lets another process have them."""
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
        """The descriptor of the locked file."""
        while True:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600)
            with ExitStack() as attempt:
                attempt.callback(os.close, descriptor)
                self._lock(descriptor)
                # It may have been removed since it was opened, and then keeps nobody out.
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
        except OSError:  # removed, or not to be read: the lock holds without the name
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
    except OSError as error:  # a full disk is no reason not to start
        _log.warning("the lock file cannot name this process: %s", error)
