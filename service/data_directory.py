"""Where everything that lasts lies."""

import fcntl
import hashlib
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nablad.files import sync_directory

__all__ = ["DataDirectory", "DataDirectoryError"]

_log = logging.getLogger(__name__)


class DataDirectoryError(Exception):
    """The data directory cannot be used."""


class DataDirectory:
    """The service's data directory; one live daemon at a time uses it.

    ``nablad.sqlite3``, ``datasets/NAME/``, ``models/MODEL_ID.safetensors``, and ``staging/`` for what is not finished.
    """

    def __init__(self, path: Path) -> None:
        """Makes the directory if there is none, locks it, and removes what a crash left unfinished.

        Raises:
            DataDirectoryError: It cannot be written, or another daemon uses it.
        """
        self.path = path.absolute()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in ("datasets", "models", "staging"):
                (self.path / folder).mkdir(exist_ok=True)
            self._lock = (self.path / "lock").open("w")
        except OSError as error:
            raise DataDirectoryError(f"the data directory {self.path} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            why = "another nablad uses it" if isinstance(error, BlockingIOError) else f"it cannot be locked ({error})"
            raise DataDirectoryError(
                f"the data directory {self.path} cannot be used: {why}; stop the other, or give another --data-dir"
            ) from error
        self._sweep()

    def close(self) -> None:
        """Lets another daemon have it."""
        self._lock.close()

    @property
    def scratch(self) -> Path:
        """A folder of short path for what ends with the daemon; always the same, so that the next start sweeps it."""
        return Path(tempfile.gettempdir(), f"nablad-{hashlib.sha256(bytes(self.path)).hexdigest()[:12]}")

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.path / "nablad.sqlite3"

    def dataset(self, name: str) -> Path:
        """The folder of a data set. Names are checked before: they hold no separators."""
        return self.path / "datasets" / name

    def model(self, model_id: str) -> Path:
        """The file of a model."""
        return self.path / "models" / f"{model_id}.safetensors"

    def adopt_dataset(self, folder: Path, name: str) -> None:
        """Moves a finished folder to where the data set of this name belongs; in place of what a crash left there."""
        self.drop_dataset(name)
        folder.rename(self.dataset(name))
        sync_directory(self.path / "datasets")

    def drop_dataset(self, name: str) -> None:
        """Removes the folder of a data set, if there is one."""
        if self.dataset(name).exists():
            shutil.rmtree(self.dataset(name))

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder for what is not finished; gone at the end unless it was moved away."""
        folder = Path(tempfile.mkdtemp(dir=self.path / "staging"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _sweep(self) -> None:
        """Everything in staging, and models that were being written."""
        for path in (*(self.path / "staging").iterdir(), *(self.path / "models").glob(".*")):
            _log.warning("removing %s, which was not finished", path)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
