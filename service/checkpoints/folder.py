"""The checkpoints of one job, in a folder of their own.

``STEP-ATTEMPT.safetensors`` is a checkpoint once ``STEP-ATTEMPT.safetensors.sha256`` lies beside it: the one line that
``sha256sum`` writes and ``sha256sum -c`` checks. Both appear whole or not at all, the digest last.
"""

import hashlib
import logging
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from nablad.files import replacing, sync_directory
from nablad.v1 import jobs_pb2 as jobs_pb
from service.checkpoints.image import CheckpointError, describe_image, described_state
from workers.runtime.failpoints import failpoint

__all__ = ["CheckpointFolder", "CheckpointWriter"]

_log = logging.getLogger(__name__)

_NAME = re.compile(r"[0-9]{12,20}-[0-9]{6,10}\.safetensors")
_KEPT = 2
# A digest's file has one line: 64 digits, two spaces and a name.
_MOST_DIGEST_BYTES = 256


class CheckpointWriter:
    """Takes the bytes of a checkpoint.

    Attributes:
        checkpoint: What was written; complete when the block of `CheckpointFolder.writing` has ended well.
    """

    def __init__(self, file: BinaryIO, checkpoint: jobs_pb.Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._file = file
        self._digest = hashlib.sha256()

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Appends the next bytes."""
        self._file.write(chunk)
        self._digest.update(chunk)
        failpoint("checkpoint.writing")

    def finish(self) -> None:
        """Waits until all bytes are on the disk, and describes them.

        Raises:
            CheckpointError: They are not a whole checkpoint.
        """
        failpoint("checkpoint.written")
        _synchronise(self._file)
        path = Path(self._file.name)
        _describe(self.checkpoint, path, describe_image(path))
        self.checkpoint.sha256 = self._digest.hexdigest()
        failpoint("checkpoint.synced")


class CheckpointFolder:
    """Writes a job's checkpoints, finds the newest good one, and keeps two of them and the one it began with."""

    def __init__(self, path: Path) -> None:
        """Takes a folder, which need not be there yet."""
        self.path = path

    @contextmanager
    def writing(self, step: int, attempt: int) -> Iterator[CheckpointWriter]:
        """A checkpoint to be written: valid, and on the disk, when the block ends well; else nothing of it is left.

        Older ones go then, except for the newest valid one among them and the one of step 0.

        Raises:
            CheckpointError: What was written is not a whole checkpoint.
            OSError: It cannot be written.
        """
        checkpoint = jobs_pb.Checkpoint(step=step, attempt=attempt)
        path = self.path_of(checkpoint)
        self._make_folder()
        there = _examine(path)
        if not there.damage:
            # It differs at most in whether it was evaluated already; to replace it would leave none for a moment.
            with Path(os.devnull).open("wb") as nowhere:
                yield CheckpointWriter(nowhere, there)
            return
        try:
            with replacing(_digest_path(path)) as digest_file:
                with replacing(path) as file:
                    writer = CheckpointWriter(file, checkpoint)
                    yield writer
                    writer.finish()
                    # Before either has its name: a disk that is full now must not cost an older checkpoint.
                    digest_file.write(_digest_line(path, writer.checkpoint.sha256))
                    _synchronise(digest_file)
                failpoint("checkpoint.renamed")
        except BaseException:
            if not _digest_path(path).exists():
                path.unlink(missing_ok=True)
            raise
        self._prune(path)

    def newest(self, spec_sha256: str) -> tuple[jobs_pb.Checkpoint | None, list[str]]:
        """The newest valid checkpoint of a spec, if there is one; and why each newer one was skipped, as sentences.

        Args:
            spec_sha256: What the description of the checkpoint must say.
        """
        skipped: list[str] = []
        for path in self._paths():
            checkpoint = _examine(path, spec_sha256)
            if not checkpoint.damage:
                return checkpoint, skipped
            skipped.append(checkpoint.damage)
        return None, skipped

    def list(self) -> list[jobs_pb.Checkpoint]:
        """All of them, the newest first, each read and compared with its digest."""
        examined = [(path, _examine(path)) for path in self._paths()]
        # What is gone by now was not damaged: a newer one has come meanwhile.
        return [checkpoint for path, checkpoint in examined if not checkpoint.damage or os.path.lexists(path)]

    def path_of(self, checkpoint: jobs_pb.Checkpoint) -> Path:
        """The file of a checkpoint."""
        return self.path / f"{checkpoint.step:012}-{checkpoint.attempt:06}.safetensors"

    def clear(self) -> None:
        """Removes all but the one of step 0: the job is done, and only running it again would need anything."""
        for path in self._paths():
            if _place(path)[0]:
                _drop(path)

    def remove(self) -> None:
        """Removes the folder with everything in it."""
        # Somebody else may be removing some of it.
        shutil.rmtree(self.path, ignore_errors=True)

    def _make_folder(self) -> None:
        if not self.path.exists():
            self.path.mkdir()
            sync_directory(self.path.parent)

    def _paths(self) -> Sequence[Path]:
        """Whatever is named like a checkpoint, the latest step first, and the latest attempt at it."""
        entries = self.path.iterdir() if self.path.exists() else ()
        return sorted((path for path in entries if _NAME.fullmatch(path.name)), key=_place, reverse=True)

    def _prune(self, written: Path) -> None:
        """Keeps the checkpoint that was just written, the newest valid ones beside it, and the one of step 0."""
        room = _KEPT - 1
        for path in self._paths():
            if path == written or _place(path)[0] == 0:
                continue
            # One that is damaged must not take the place of one that is not.
            if room and not _examine(path).damage:
                room -= 1
            else:
                _drop(path)


def _examine(path: Path, spec_sha256: str | None = None) -> jobs_pb.Checkpoint:
    """What a checkpoint is, and what is wrong with it: with its file, or with its spec if one is asked for."""
    step, attempt = _place(path)
    checkpoint = jobs_pb.Checkpoint(step=step, attempt=attempt)
    try:
        checkpoint.sha256 = _verified_digest(path)
        description = describe_image(path)
        _describe(checkpoint, path, description)
        if spec_sha256 not in {None, description.get("spec_sha256")}:
            checkpoint.damage = f"checkpoint {path.name} belongs to another spec or to other data"
    except CheckpointError as error:
        checkpoint.damage = str(error)
    except OSError as error:
        checkpoint.damage = f"checkpoint {path.name} cannot be read: {error.strerror}"
    return checkpoint


def _drop(path: Path) -> None:
    """Removes a checkpoint; that it cannot be removed must not spoil the one that was written."""
    try:
        # The digest first: what has none is no checkpoint, wherever a crash comes.
        _digest_path(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("the old checkpoint %s cannot be removed: %s", path, error.strerror)


def _describe(checkpoint: jobs_pb.Checkpoint, path: Path, description: Mapping[str, Any]) -> None:
    state, facts = described_state(description), path.stat()
    # As in Progress: epochs begun.
    checkpoint.epoch = state.epoch.epoch + 1 if state.step else 0
    checkpoint.size_bytes = facts.st_size
    checkpoint.create_time.FromNanoseconds(facts.st_mtime_ns)


def _verified_digest(path: Path) -> str:
    """The SHA-256 of a checkpoint's file, which is the one beside it.

    Raises:
        CheckpointError: It is not, or there is none beside it.
    """
    with _open(path) as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        with _open(_digest_path(path)) as file:
            line = file.read(_MOST_DIGEST_BYTES)
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint {path.name} has no SHA-256 beside it: it was not finished") from error
    if line != _digest_line(path, sha256):
        raise CheckpointError(f"checkpoint {path.name} is not what was written: the SHA-256 beside it is not its own")
    return sha256


def _open(path: Path) -> BufferedReader:
    """A file of the folder; a link could lead out of it."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise CheckpointError(f"{path.name} is not a regular file")
    return path.open("rb")


def _place(path: Path) -> tuple[int, int]:
    """Step and attempt, from a checkpoint's name."""
    step, attempt = path.stem.split("-")
    return int(step), int(attempt)


def _digest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _digest_line(path: Path, sha256: str) -> bytes:
    return f"{sha256}  {path.name}\n".encode()


def _synchronise(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
