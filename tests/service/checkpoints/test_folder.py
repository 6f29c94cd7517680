"""The folder of a job's checkpoints: whole or not at all, the newest good one found, and few enough kept."""

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from resource import RLIMIT_FSIZE, getrlimit, setrlimit

import pytest

from nablad.v1 import jobs_pb2 as jobs_pb
from service.checkpoints import folder as folder_module
from service.checkpoints.folder import CheckpointFolder
from service.checkpoints.image import CheckpointError, read_image
from service.storage.data_directory import DataDirectory

SPEC = "5" * 64

Write = Callable[..., jobs_pb.Checkpoint]


def _content(folder: CheckpointFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.path.iterdir()}


def _steps(folder: CheckpointFolder) -> list[int]:
    return [checkpoint.step for checkpoint in folder.list()]


def test_what_was_written_is_found(folder: CheckpointFolder, write: Write) -> None:
    """With its digest, its size, and the epoch that it lies in; the file is at its path."""
    written = write(25, 3)
    assert folder.newest(SPEC) == (written, [])
    assert folder.list() == [written]
    assert (written.step, written.attempt, written.epoch) == (25, 3, 3)
    assert written.size_bytes == folder.path_of(written).stat().st_size
    assert read_image(folder.path_of(written), written.sha256).state.step == 25


def _sweep(folder: CheckpointFolder) -> None:
    """What the next start of a service does to the data directory."""
    DataDirectory(folder.path.parents[1]).close()


def test_a_folder_that_is_not_there_is_empty(folder: CheckpointFolder) -> None:
    """Looking, sweeping and removing make nothing of it."""
    _sweep(folder)
    folder.remove()
    assert (folder.newest(SPEC), folder.list()) == ((None, []), [])
    assert not folder.path.exists()


def test_one_that_is_whole_is_not_replaced_by_another_of_its_step(folder: CheckpointFolder, write: Write) -> None:
    """There would be none for a moment; one that is damaged is replaced."""
    first = write(3)
    before = _content(folder)
    assert write(3) == first
    assert _content(folder) == before
    folder.path_of(first).write_bytes(b"")
    assert folder.newest(SPEC)[0] is None
    again = write(3)
    assert folder.newest(SPEC) == (again, [])


def test_clearing_leaves_what_the_job_began_with(folder: CheckpointFolder, write: Write) -> None:
    """Which only running it again needs."""
    for step in (0, 3, 5):
        write(step)
    folder.clear()
    assert _steps(folder) == [0]
    assert len(list(folder.path.iterdir())) == 2


def test_sha256sum_checks_them(folder: CheckpointFolder, write: Write) -> None:
    """The digest's file is what sha256sum writes, and what it checks."""
    name = folder.path_of(write(3)).name
    line = subprocess.run(["sha256sum", name], cwd=folder.path, capture_output=True, check=True).stdout
    assert (folder.path / f"{name}.sha256").read_bytes() == line
    subprocess.run(["sha256sum", "-c", f"{name}.sha256"], cwd=folder.path, check=True, stdout=subprocess.DEVNULL)


def test_the_newest_two_are_kept_and_the_first(folder: CheckpointFolder, write: Write) -> None:
    """By step, then by attempt; step 0 stays for ever, and does not count."""
    for step, attempt in ((0, 0), (9, 1), (10, 1), (10, 2), (200, 2)):
        write(step, attempt)
    assert [(found.step, found.attempt) for found in folder.list()] == [(200, 2), (10, 2), (0, 0)]
    assert len(_content(folder)) == 6


def test_a_damaged_one_does_not_count(folder: CheckpointFolder, write: Write) -> None:
    """Two good ones are kept, also where damaged ones have later steps: an attempt after them began further back."""
    for step in (10, 20):
        write(step, 1)
    _flip(folder.path_of(folder.list()[0]), -1)
    write(15, 2)
    assert _steps(folder) == [15, 10]
    write(17, 2)
    assert _steps(folder) == [17, 15]


def _flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x20
    path.write_bytes(data)


@pytest.mark.parametrize("which", ["data", "digest"])
@pytest.mark.parametrize("kind", ["truncated", "flipped"])
def test_every_damage_is_found(folder: CheckpointFolder, write: Write, which: str, kind: str) -> None:
    """200 lengths, and 200 single bytes: the one before is used, and a sentence says why."""
    random = Random(7)
    older, newest = write(1), write(2)
    path = folder.path_of(newest)
    damaged = path if which == "data" else path.with_name(f"{path.name}.sha256")
    whole = damaged.read_bytes()
    for _ in range(200):
        position = random.randrange(len(whole))
        changed = bytes([whole[position] ^ random.randrange(1, 256)])
        damaged.write_bytes(whole[:position] + (changed + whole[position + 1 :] if kind == "flipped" else b""))
        found, skipped = folder.newest(SPEC)
        assert found == older
        assert len(skipped) == 1
        assert path.name in skipped[0]
        assert [bool(each.damage) for each in folder.list()] == [True, False]
    damaged.write_bytes(whole)
    assert folder.newest(SPEC)[0].sha256 == newest.sha256


def _without_digest(path: Path) -> None:
    path.with_name(f"{path.name}.sha256").unlink()


def _of_no_use(path: Path) -> None:
    """A file of another content, under its right digest."""
    path.write_bytes(b"no checkpoint")
    line = f"{hashlib.sha256(b'no checkpoint').hexdigest()}  {path.name}\n"
    path.with_name(f"{path.name}.sha256").write_text(line)


def _a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _a_link(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _with_linked_digest(path: Path) -> None:
    _a_link(path.with_name(f"{path.name}.sha256"))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_without_digest, "no SHA-256 beside it"),
        (_of_no_use, "not a safetensors file"),
        (_a_folder, "not a regular file"),
        (_a_link, "not a regular file"),
        (_with_linked_digest, "not a regular file"),
    ],
)
def test_what_is_no_checkpoint_is_skipped(
    folder: CheckpointFolder, write: Write, spoil: Callable[[Path], None], why: str
) -> None:
    """The one before is used; links are not followed out of the folder."""
    older, newest = write(1), write(2)
    spoil(folder.path_of(newest))
    found, (sentence,) = folder.newest(SPEC)
    assert found == older
    assert why in sentence
    assert folder.list()[0].damage == sentence


def test_one_of_another_spec_is_skipped(folder: CheckpointFolder, write: Write) -> None:
    """It is whole, but nothing to go on from."""
    written = write(1)
    found, (sentence,) = folder.newest("6" * 64)
    assert found is None
    assert "another spec" in sentence
    assert folder.list() == [written]


def test_one_that_cannot_be_read_is_skipped(
    folder: CheckpointFolder, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails at one file costs only that one."""
    older, newest = write(1), write(2)
    opened = Path.open

    def fail(path: Path, *args: object) -> object:
        if path == folder.path_of(newest):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return opened(path, *args)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", fail)
    found, (sentence,) = folder.newest(SPEC)
    assert found == older
    assert "Input/output error" in sentence


@contextmanager
def _failing_sync(monkeypatch: pytest.MonkeyPatch, at: int) -> Iterator[None]:
    """The disk is full at the at-th fsync."""
    count = 0

    def fsync(_: int) -> None:
        nonlocal count
        count += 1
        if count == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield


@pytest.mark.parametrize("at", range(1, 7))
def test_a_full_disk_leaves_the_old_ones(
    folder: CheckpointFolder, write: Write, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Whichever fsync finds no room, of the file, its digest or the folder: no debris, and what was there is used."""
    for step in (1, 2):
        write(step)
    before = _content(folder)
    with _failing_sync(monkeypatch, at), pytest.raises(OSError, match="No space left"):
        write(3)
    after = _content(folder)
    assert {name: after[name] for name in before} == before
    assert not [name for name in after if name.startswith(".")]


@pytest.mark.parametrize("room_bytes", [0, 50, 150])
def test_a_file_that_cannot_grow_leaves_the_old_ones(folder: CheckpointFolder, write: Write, room_bytes: int) -> None:
    """The operating system's own refusal in the midst of writing."""
    write(1)
    before = _content(folder)
    limits = getrlimit(RLIMIT_FSIZE)
    setrlimit(RLIMIT_FSIZE, (room_bytes, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write(2)
    finally:
        setrlimit(RLIMIT_FSIZE, limits)
    assert _content(folder) == before


MOMENTS = ["checkpoint.writing", "checkpoint.written", "checkpoint.synced", "checkpoint.renamed"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_exception_leaves_the_old_ones(
    folder: CheckpointFolder, write: Write, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """At every moment before it is valid."""
    write(1)
    before = _content(folder)

    def fail(name: str) -> None:
        if name == moment:
            raise OSError(errno.ENOSPC, name)

    monkeypatch.setattr(folder_module, "failpoint", fail)
    with pytest.raises(OSError, match=moment):
        write(2)
    assert _content(folder) == before


def test_a_stream_that_breaks_off_leaves_the_old_ones(folder: CheckpointFolder, write: Write) -> None:
    """Less than the header says is no checkpoint, and neither is nothing."""
    whole = folder.path_of(write(1)).read_bytes()
    before = _content(folder)
    for length in (0, 7, 100, len(whole) - 1):
        with pytest.raises(CheckpointError), folder.writing(2, 1) as writer:
            writer.write(whole[:length])
        assert _content(folder) == before


def test_the_same_step_may_be_written_again(folder: CheckpointFolder, write: Write) -> None:
    """The second takes the first one's place."""
    write(1)
    again = write(1)
    assert folder.list() == [again]


def test_what_cannot_be_removed_spoils_nothing(folder: CheckpointFolder, write: Write) -> None:
    """A folder in the place of an old checkpoint stays, and the new one is there."""
    write(1)
    _a_folder(folder.path_of(folder.list()[0]))
    written = write(2)
    assert folder.newest(SPEC) == (written, [])


def test_sweeping_removes_what_was_not_finished(folder: CheckpointFolder, write: Write) -> None:
    """And nothing else."""
    write(1)
    before = _content(folder)
    (folder.path / ".000000000002-000001.safetensors.0123").write_bytes(b"half")
    _sweep(folder)
    assert _content(folder) == before
    folder.remove()
    assert not folder.path.exists()


KILLED = """
import sys
from pathlib import Path
from service.checkpoints.folder import CheckpointFolder
with CheckpointFolder(Path(sys.argv[1])).writing(2, 1) as writer:
    writer.write(Path(sys.argv[2]).read_bytes())
"""


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_writer_leaves_a_folder_that_loads(
    folder: CheckpointFolder, write: Write, tmp_path: Path, moment: str
) -> None:
    """The one before is found, sweeping leaves nothing half, and the next one is written as ever."""
    older = write(1)
    shutil.copy(folder.path_of(older), tmp_path / "image")
    environment = os.environ | {"NABLAD_FAILPOINTS": f"{moment}=kill"}
    command = [sys.executable, "-c", KILLED, str(folder.path), str(tmp_path / "image")]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    _sweep(folder)
    assert folder.newest(SPEC)[0] == older
    newer = write(3)
    assert folder.list() == [newer, older]
    assert len(_content(folder)) == 4
