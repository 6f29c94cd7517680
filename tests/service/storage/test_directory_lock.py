"""One process at a time for a directory, whatever becomes of the files in it."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.storage.directory_lock import DirectoryLock, InUseError

# Takes the lock, and starts a process that inherits what it may; ends with its standard input.
HOLDER = """
import subprocess, sys
from pathlib import Path
from service.storage.directory_lock import DirectoryLock
lock = DirectoryLock(Path(sys.argv[1]))
subprocess.Popen([sys.executable, "-c", "import sys; print('started', flush=True); sys.stdin.read()"], close_fds=False)
sys.stdin.read()
"""

FLOCK = fcntl.flock


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that has the lock of the temporary directory."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"started\n"
        yield process
        process.kill()


def _remove(lock: Path) -> None:
    lock.unlink()


def _replace(lock: Path) -> None:
    lock.with_name("other").touch()
    lock.with_name("other").replace(lock)


def _move_away(lock: Path) -> None:
    lock.rename(lock.with_name("moved"))


@pytest.mark.parametrize("change", [_remove, _replace, _move_away])
def test_it_holds_without_its_file(
    holder: "subprocess.Popen[bytes]", tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """Somebody cleans up by hand while the other process lives: nobody else gets in."""
    change(tmp_path / "lock")
    for _ in range(2):
        with pytest.raises(InUseError, match="another nablad uses it"):
            DirectoryLock(tmp_path)


def test_it_ends_with_its_process_and_not_with_those_that_this_started(
    holder: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    """These may outlive it for a while after SIGKILL."""
    with pytest.raises(InUseError, match=f"another nablad .process {holder.pid} on "):
        DirectoryLock(tmp_path)
    holder.kill()
    holder.wait()
    DirectoryLock(tmp_path).close()


def _flock_of_files_only(descriptor: int, operation: int) -> None:
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise OSError(errno.EBADF, "Bad file descriptor")
    FLOCK(descriptor, operation)


def test_the_file_alone_holds_where_directories_cannot_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS wants a file that is open for writing."""
    monkeypatch.setattr(fcntl, "flock", _flock_of_files_only)
    first = DirectoryLock(tmp_path)
    with pytest.raises(InUseError, match=f"process {os.getpid()} on "):
        DirectoryLock(tmp_path)
    first.close()
    DirectoryLock(tmp_path).close()


def test_a_file_that_is_removed_while_it_is_being_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock of a file without a name keeps nobody out."""
    removals = iter([True])

    def remove_first(descriptor: int, operation: int) -> None:
        _flock_of_files_only(descriptor, operation)
        if next(removals, False):
            (tmp_path / "lock").unlink()

    monkeypatch.setattr(fcntl, "flock", remove_first)
    lock = DirectoryLock(tmp_path)
    assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")
    with pytest.raises(InUseError):
        DirectoryLock(tmp_path)
    lock.close()


def test_another_error_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not taken for a free lock, and nothing stays open."""

    def fail(descriptor: int, operation: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="Input/output"):
        DirectoryLock(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
