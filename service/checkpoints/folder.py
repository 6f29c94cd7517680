"""Checkpoint folder: the checkpoints of one job, in a folder of their own.

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
# The file of a digest has one line: 64 digits, two spaces and a name.
_MOST_DIGEST_BYTES = 256


class CheckpointWriter:
    """Writes the bytes of a checkpoint.

    Attributes:
        checkpoint: Description of what was written; complete when the block of `CheckpointFolder.writing` ended well.
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
            CheckpointError: The bytes are not a whole checkpoint.
        """
        failpoint("checkpoint.written")
        _synchronise(self._file)
        path = Path(self._file.name)
        _describe(self.checkpoint, path, describe_image(path))
        self.checkpoint.sha256 = self._digest.hexdigest()
        failpoint("checkpoint.synced")


class CheckpointFolder:
    """Writes a job's checkpoints, finds the newest valid one, and keeps two of them and the first one."""

    def __init__(self, path: Path) -> None:
        """Uses the folder `path`, which may not exist yet."""
        self.path = path

    @contextmanager
    def writing(self, step: int, attempt: int) -> Iterator[CheckpointWriter]:
        """Opens a checkpoint for writing. It is on the disk when the block ends well, else nothing of it is left.

        Older ones are deleted then, except for the newest valid one among them and the one of step 0.

        Raises:
            CheckpointError: What was written is not a whole checkpoint.
            OSError: The checkpoint cannot be written.
        """
        checkpoint = jobs_pb.Checkpoint(step=step, attempt=attempt)
        path = self.path_of(checkpoint)
        self._make_folder()
        existing = _examine(path)
        if not existing.damage:
            # The new one differs at most in whether it was evaluated. Replacing would leave none for a moment.
            with Path(os.devnull).open("wb") as nowhere:
                yield CheckpointWriter(nowhere, existing)
            return
        try:
            with replacing(_digest_path(path)) as digest_file:
                with replacing(path) as file:
                    writer = CheckpointWriter(file, checkpoint)
                    yield writer
                    writer.finish()
                    # Before either file has its name, because a full disk must not cost an older checkpoint.
                    digest_file.write(_digest_line(path, writer.checkpoint.sha256))
                    _synchronise(digest_file)
                failpoint("checkpoint.renamed")
        except BaseException:
            if not _digest_path(path).exists():
                path.unlink(missing_ok=True)
            raise
        self._prune(path)

    def newest(self, spec_sha256: str) -> tuple[jobs_pb.Checkpoint | None, list[str]]:
        """Returns the newest valid checkpoint of a spec, if any, and a sentence for each newer one that was skipped.

        Args:
            spec_sha256: Digest of the spec, which the checkpoint's description must have.
        """
        skipped: list[str] = []
        for path in self._paths():
            checkpoint = _examine(path, spec_sha256)
            if not checkpoint.damage:
                return checkpoint, skipped
            skipped.append(checkpoint.damage)
        return None, skipped

    def list(self) -> list[jobs_pb.Checkpoint]:
        """Returns all checkpoints, the newest first, each compared with its digest."""
        examined = [(path, _examine(path)) for path in self._paths()]
        # A file that is gone by now was not damaged, but replaced by a newer one.
        return [checkpoint for path, checkpoint in examined if not checkpoint.damage or os.path.lexists(path)]

    def path_of(self, checkpoint: jobs_pb.Checkpoint) -> Path:
        """Returns the path of a checkpoint's file."""
        return self.path / f"{checkpoint.step:012}-{checkpoint.attempt:06}.safetensors"

    def clear(self) -> None:
        """Removes all checkpoints but that of step 0, which a verification of the job needs."""
        for path in self._paths():
            if _place(path)[0]:
                _drop(path)

    def remove(self) -> None:
        """Removes the folder with everything in it."""
        # Another task may be removing files of it.
        shutil.rmtree(self.path, ignore_errors=True)

    def _make_folder(self) -> None:
        if not self.path.exists():
            self.path.mkdir()
            sync_directory(self.path.parent)

    def _paths(self) -> Sequence[Path]:
        """Returns the paths of all checkpoints by their names, the latest step and attempt first."""
        entries = self.path.iterdir() if self.path.exists() else ()
        return sorted((path for path in entries if _NAME.fullmatch(path.name)), key=_place, reverse=True)

    def _prune(self, written: Path) -> None:
        """Keeps the checkpoint that was just written, the newest valid ones beside it, and the one of step 0."""
        room = _KEPT - 1
        for path in self._paths():
            if path == written or _place(path)[0] == 0:
                continue
            # A damaged one must not take the place of an intact one.
            if room and not _examine(path).damage:
                room -= 1
            else:
                _drop(path)


def _examine(path: Path, spec_sha256: str | None = None) -> jobs_pb.Checkpoint:
    """Returns the description of a checkpoint, and its damage: of the file, or another spec than `spec_sha256`."""
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
    """Removes a checkpoint; only logs if it cannot, because the newer one is valid all the same."""
    try:
        # The digest first, because a file without one is no checkpoint if a crash comes between.
        _digest_path(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("cannot remove the old checkpoint %s: %s", path, error.strerror)


def _describe(checkpoint: jobs_pb.Checkpoint, path: Path, description: Mapping[str, Any]) -> None:
    state, facts = described_state(description), path.stat()
    # As in Progress: epochs begun.
    checkpoint.epoch = state.epoch.epoch + 1 if state.step else 0
    checkpoint.size_bytes = facts.st_size
    checkpoint.create_time.FromNanoseconds(facts.st_mtime_ns)


def _verified_digest(path: Path) -> str:
    """Returns the SHA-256 of a checkpoint's file, after comparing it with the one beside it.

    Raises:
        CheckpointError: The digests differ, or there is none beside the file.
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
    """Opens a regular file of the folder, because a link could lead out of it."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise CheckpointError(f"{path.name} is not a regular file")
    return path.open("rb")


def _place(path: Path) -> tuple[int, int]:
    """Returns step and attempt from the name of a checkpoint."""
    step, attempt = path.stem.split("-")
    return int(step), int(attempt)


def _digest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _digest_line(path: Path, sha256: str) -> bytes:
    return f"{sha256}  {path.name}\n".encode()


def _synchronise(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
