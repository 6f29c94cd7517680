"""Data directory: the layout of everything that the service stores."""

import logging
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from nablad.files import sync_directory
from service.storage.directory_lock import DirectoryLock, InUseError
from service.storage.private_files import OTHERS, foreign_owner, other_writers, restrict_to_owner
from service.storage.scratch import scratch_folder

__all__ = ["DataDirectory", "DataDirectoryError"]

_log = logging.getLogger(__name__)

_FOLDERS = ("datasets", "models", "checkpoints", "staging")
_STOP_NOTE = "told-to-stop"
_FILES = ("lock", "reserve", _STOP_NOTE)


class DataDirectoryError(Exception):
    """The data directory cannot be used."""


class DataDirectory:
    """The service's data directory, which one daemon at a time uses.

    ``nablad.sqlite3``, ``datasets/NAME/``, ``models/MODEL_ID.safetensors``, ``checkpoints/JOB_ID/``, ``staging/`` for
    unfinished files, ``reserve``, which keeps room for a full disk, and ``lock``, which names the daemon. All of it is
    accessible to this user only; older files are made so at the start.
    """

    def __init__(self, path: Path, *, sweep: bool = True) -> None:
        """Makes the directory if there is none, locks it, and removes unfinished files of a crash.

        Args:
            path: Path of the directory.
            sweep: Whether unfinished files are removed.

        Raises:
            DataDirectoryError: It cannot be written, others may write to it, or another daemon uses it.
        """
        self.path = _absolute(path)
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._require_no_other_writers()
            for folder in _FOLDERS:
                (self.path / folder).mkdir(mode=0o700, exist_ok=True)
            self._require_own()
        except OSError as error:
            raise DataDirectoryError(
                f"the data directory {self.path} cannot be used: {error.strerror}; give another with --data-dir or "
                "NABLAD_DATA_DIR"
            ) from error
        try:
            self._lock = DirectoryLock(self.path)
        except InUseError as error:
            raise self._unusable(str(error)) from error
        except OSError as error:
            raise self._unusable(f"it cannot be locked ({error})") from error
        try:
            self._tighten()
            if sweep:
                self._sweep()
        except BaseException:
            self._lock.close()
            raise

    def close(self) -> None:
        """Unlocks the directory for another daemon."""
        self._lock.close()

    def record_stop(self) -> None:
        """Notes that the daemon ends on request, so that the next one does not count a crash."""
        try:
            self._stop_note.touch()
        except OSError as error:  # a full disk must not prevent the end
            _log.warning("the note that the service ends on request cannot be written: %s", error)

    def consume_stop_note(self) -> bool:
        """Returns whether the last daemon ended on request, and removes its note."""
        try:
            self._stop_note.unlink()
        except FileNotFoundError:
            return False
        return True

    @property
    def _stop_note(self) -> Path:
        return self.path / _STOP_NOTE

    @property
    def scratch(self) -> Path:
        """Folder of short path for files that end with the daemon; the same at each start, which sweeps it.

        Raises:
            ScratchError: No directory can hold it.
        """
        return scratch_folder(self.path)

    @property
    def database(self) -> Path:
        """Path of the SQLite file."""
        return self.path / "nablad.sqlite3"

    @property
    def reserve(self) -> Path:
        """Path of the file whose room is released when the disk is full."""
        return self.path / "reserve"

    def dataset(self, name: str) -> Path:
        """Returns the folder of a data set; its name was checked before and has no separators."""
        return self.path / "datasets" / name

    def model(self, model_id: str) -> Path:
        """Returns the path of a model's file."""
        return self.path / "models" / f"{model_id}.safetensors"

    def checkpoints(self, job_id: str) -> Path:
        """Returns the folder of a job's checkpoints, which need not exist."""
        return self.path / "checkpoints" / job_id

    def remove_orphan_checkpoints(self, job_ids: Collection[str]) -> None:
        """Removes the checkpoints of all other jobs, which a crash left when a job was created or deleted."""
        known = set(job_ids)
        for path in (self.path / "checkpoints").iterdir():
            if path.name not in known:
                _log.warning("removing %s, which belongs to no job", path)
                _remove(path)

    def jobs_with_checkpoints(self) -> list[str]:
        """Returns the ids of the jobs that have a folder of checkpoints."""
        return [path.name for path in (self.path / "checkpoints").iterdir()]

    def model_ids(self) -> list[str]:
        """Returns the ids of the models that have a file."""
        return [path.stem for path in (self.path / "models").glob("*.safetensors")]

    def adopt_dataset(self, folder: Path, name: str) -> None:
        """Moves a finished folder to its place as the data set of this name; replaces what a crash left there."""
        self.remove_dataset(name)
        folder.rename(self.dataset(name))
        sync_directory(self.path / "datasets")

    def remove_dataset(self, name: str) -> None:
        """Removes the folder of a data set, if there is one."""
        if self.dataset(name).exists():
            shutil.rmtree(self.dataset(name))

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Makes a folder for unfinished files; removes it at the end unless it was moved away."""
        folder = Path(tempfile.mkdtemp(dir=self.path / "staging"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _require_no_other_writers(self) -> None:
        if others := other_writers(self.path.stat()):
            raise DataDirectoryError(
                f"the data directory {self.path} cannot be used: {others} may write to it, and so change jobs; "
                f"end that (chmod go-w, or chown), or give a folder in it: --data-dir {self.path / 'data'}"
            )

    def _entries(self) -> list[Path]:
        """Returns the folders and files at the top that belong to the service."""
        names = (self.path / name for name in (*_FOLDERS, *_FILES))
        return [path for path in (*names, *self.path.glob("nablad.sqlite3*")) if path.exists()]

    def _require_own(self) -> None:
        """Rejects files of other users, who may have been able to write here earlier."""
        for path in self._entries():
            if owner := foreign_owner(path.stat()):
                raise DataDirectoryError(
                    f"the data directory {self.path} cannot be used: {path.name} in it belongs to {owner}; give it to "
                    "the service's user (chown --recursive) if it is what the service wrote, else remove it"
                )

    def _tighten(self) -> None:
        for path in self._entries():
            if path.stat().st_mode & OTHERS:
                _log.info("taking the rights of others on %s away", path)
                restrict_to_owner(path.resolve())

    def _unusable(self, why: str) -> DataDirectoryError:
        return DataDirectoryError(
            f"the data directory {self.path} cannot be used: {why}; stop the other, or give another --data-dir"
        )

    def _sweep(self) -> None:
        """Removes all files in staging, and unfinished models and checkpoints, whose names begin with a dot."""
        folders = [path for path in (self.path / "checkpoints").iterdir() if path.is_dir() and not path.is_symlink()]
        unfinished = [path for folder in (self.path / "models", *folders) for path in folder.glob(".*")]
        for path in (*(self.path / "staging").iterdir(), *unfinished):
            _log.warning("removing %s, which was not finished", path)
            _remove(path)


def _absolute(path: Path) -> Path:
    """Returns the absolute path, because other processes have other working directories.

    Raises:
        DataDirectoryError: The working directory is gone, or the path is no text, which messages need.
    """
    try:
        absolute = path.absolute()
        str(absolute).encode()
    except FileNotFoundError as error:
        raise DataDirectoryError(
            f"the data directory {path} cannot be found: the directory that this was started in is gone; start it in "
            "another one, or give --data-dir an absolute path"
        ) from error
    except UnicodeEncodeError as error:
        encoding = sys.getfilesystemencoding()
        raise DataDirectoryError(
            f"the data directory {bytes(path)!r} cannot be used: in {encoding}, the encoding of this locale, it is no "
            f"text; {'' if encoding == 'utf-8' else 'set LC_ALL=C.UTF-8, or '}give another --data-dir"
        ) from error
    return absolute


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
