"""The data directory: one daemon at a time, swept at the start, and nothing of unknown jobs."""

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.storage.data_directory import DataDirectory, DataDirectoryError


def test_another_daemon_is_refused_and_named(tmp_path: Path) -> None:
    """As long as the other lives, with its process and host; then it may be had."""
    first = DataDirectory(tmp_path)
    with pytest.raises(DataDirectoryError, match=f"process {os.getpid()} on {socket.gethostname()}.*uses it"):
        DataDirectory(tmp_path)
    first.close()
    DataDirectory(tmp_path).close()


HOLDER = """
import sys
from pathlib import Path
from service.storage.data_directory import DataDirectory
directory = DataDirectory(Path(sys.argv[1]))
print("taken", flush=True)
sys.stdin.read()
"""


def test_a_killed_daemon_leaves_it_free(tmp_path: Path) -> None:
    """The lock ends with the process, whatever ends it."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"taken\n"
        with pytest.raises(DataDirectoryError, match=f"another nablad .process {holder.pid} on "):
            DataDirectory(tmp_path)
        holder.kill()
    DataDirectory(tmp_path).close()
    assert (tmp_path / "lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"


def test_it_stays_locked_when_the_lock_file_is_removed(tmp_path: Path) -> None:
    """By hand, while a daemon has it: the second one is refused with a sentence."""
    first = DataDirectory(tmp_path)
    (tmp_path / "lock").unlink()
    with pytest.raises(DataDirectoryError, match=r"cannot be used: another nablad uses it; stop the other, or give"):
        DataDirectory(tmp_path)
    first.close()


def test_a_full_disk_is_no_reason_not_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name in the lock file is only for people: the lock holds without it."""

    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", fail)
    first = DataDirectory(tmp_path)
    with pytest.raises(DataDirectoryError, match="another nablad uses it"):
        DataDirectory(tmp_path)
    first.close()


def test_it_is_known_whether_the_daemon_before_was_told_to_end(tmp_path: Path) -> None:
    """Once: the next end is another one."""
    directory = DataDirectory(tmp_path)
    assert not directory.consume_stop_note()
    directory.record_stop()
    directory.record_stop()
    directory.close()
    directory = DataDirectory(tmp_path)
    assert directory.consume_stop_note()
    assert not directory.consume_stop_note()
    directory.close()


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A file in the directory's place."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataDirectoryError, match=r"file cannot be used"):
        DataDirectory(tmp_path / "file")


def _modes(path: Path) -> dict[str, int]:
    return {str(each.relative_to(path)): stat.S_IMODE(each.stat().st_mode) for each in path.rglob("*")}


@pytest.fixture
def no_mask() -> Iterator[None]:
    """A process that leaves everything that it makes open to everybody."""
    mask = os.umask(0)
    yield
    os.umask(mask)


@pytest.mark.usefixtures("no_mask")
def test_a_new_one_is_for_its_user_alone(tmp_path: Path) -> None:
    """And so is what is in it, whatever the process lets others have of its files."""
    data = tmp_path / "data"
    DataDirectory(data).close()
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert _modes(data) == dict.fromkeys(("datasets", "models", "checkpoints", "staging"), 0o700) | {"lock": 0o600}


@pytest.mark.usefixtures("no_mask")
def test_an_older_one_becomes_its_user_s_alone(tmp_path: Path) -> None:
    """Everything that is the service's; what else lies there, and where links lead, is left as it is."""
    data, outside = tmp_path / "data", tmp_path / "outside"
    own = {"datasets/d/features.npy", "models/m.safetensors", "checkpoints/j/1.safetensors", "nablad.sqlite3-wal"}
    _make(outside / "file", *(data / name for name in own | {"notes/other"}))
    data.chmod(0o755)
    (data / "models" / "link").symlink_to(outside)
    DataDirectory(data).close()
    modes = _modes(data)
    others = {name: modes.pop(name) for name in ("notes", "notes/other", "models/link")}
    assert {mode & 0o077 for mode in modes.values()} == {0}
    assert others == {"notes": 0o777, "notes/other": 0o666, "models/link": 0o777}
    assert _modes(outside) == {"file": 0o666}


@pytest.mark.parametrize(("mode", "who"), [(0o777, "everybody"), (0o1777, "everybody"), (0o770, "the group ")])
def test_one_that_others_may_write_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, who: str
) -> None:
    """Before anything is made or read there; the sentence says what to do. A folder in it may be had."""
    monkeypatch.setattr(os, "getegid", lambda: tmp_path.stat().st_gid + 1)
    monkeypatch.setattr(os, "getgroups", list)
    tmp_path.chmod(mode)
    with pytest.raises(DataDirectoryError, match=f"{who}.*may write to it.*chmod go-w.*--data-dir {tmp_path}/data"):
        DataDirectory(tmp_path)
    assert list(tmp_path.iterdir()) == []
    DataDirectory(tmp_path / "data").close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_one_of_another_user_is_refused(tmp_path: Path) -> None:
    """And one in which another user has left something, while that was possible."""
    data = tmp_path / "data"
    DataDirectory(data).close()
    _make(data / "nablad.sqlite3")
    for path in (data, data / "datasets", data / "nablad.sqlite3", data / "lock"):
        os.chown(path, 12345, 12345)
        with pytest.raises(DataDirectoryError, match=r"user 12345.*chown"):
            DataDirectory(data)
        os.chown(path, 0, 0)
    DataDirectory(data).close()


def test_a_relative_path_is_from_a_directory_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the sentence says what is gone, and what to do; an absolute one does without."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(DataDirectoryError, match=r"data cannot be found: .* started in is gone; .* absolute path"):
        DataDirectory(Path("data"))
    DataDirectory(tmp_path / "data").close()


def test_a_path_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Messages with it could not be written; the sentence names its bytes and the encoding."""
    path = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(
        DataDirectoryError,
        match=r"caf\\xe9' cannot be used: in .*, the encoding of this locale, it is no text; .*give another --data-dir",
    ):
        DataDirectory(path)
    assert not path.exists()


def _make(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def _files(path: Path) -> set[str]:
    return {str(each.relative_to(path)) for each in path.rglob("*") if each.is_file()} - {"lock"}


def test_a_start_sweeps_what_was_not_finished(tmp_path: Path) -> None:
    """Staging, and temporary files of models and checkpoints; nothing else."""
    kept = {"models/a.safetensors", "checkpoints/a/1.safetensors", "datasets/d/features.npy", "nablad.sqlite3"}
    unfinished = {"models/.a.0123", "checkpoints/a/.1.0123", "staging/s/features.npy", "staging/.hidden"}
    _make(*(tmp_path / name for name in kept | unfinished))
    DataDirectory(tmp_path).close()
    assert _files(tmp_path) == kept
    assert not (tmp_path / "staging" / "s").exists()


def test_links_are_not_followed_out_of_it(tmp_path: Path) -> None:
    """Sweeping and dropping take the link, and leave what it leads to."""
    outside = tmp_path / "outside"
    _make(outside / ".precious")
    data = tmp_path / "data"
    for folder in ("staging", "checkpoints"):
        (data / folder).mkdir(parents=True)
        (data / folder / "link").symlink_to(outside)
    directory = DataDirectory(data)
    directory.remove_orphan_checkpoints([])
    directory.close()
    assert _files(outside) == {".precious"}
    assert _files(data) == set()
    assert not list((data / "checkpoints").iterdir())


def test_checkpoints_of_unknown_jobs_go(tmp_path: Path) -> None:
    """Those of known ones stay."""
    directory = DataDirectory(tmp_path)
    _make(*(directory.checkpoints(job_id) / "1.safetensors" for job_id in ("a", "b", "c")))
    _make(tmp_path / "checkpoints" / "stray")
    directory.remove_orphan_checkpoints(["b", "never-launched"])
    directory.close()
    assert _files(tmp_path) == {"checkpoints/b/1.safetensors"}
