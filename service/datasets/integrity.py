"""The stored form of a data set, compared with the digests that were recorded when it was registered."""

import errno
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final

from nablad.v1 import datasets_pb2 as datasets_pb
from service.errors import StoredDatasetError
from service.storage.digests import open_stored, sha256_of

__all__ = ["ROW_FILES", "DatasetVerifier", "damaged_dataset", "open_stored_file", "require_intact"]

#: What the digest of a data set goes over, in this order.
ROW_FILES: Final = ("features.npy", "targets.npy")
# Errors that reading again does not mend; others, of a file system on another machine say, may pass.
_LASTING: Final = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EPERM)

# What changes when a file is written to or replaced, whatever its content.
_Facts = tuple[int, ...]


def damaged_dataset(name: str, what: str) -> StoredDatasetError:
    """The error that says what is wrong with a data set, and what to do."""
    return StoredDatasetError(
        f"data set {name!r} {what}; restore it from a backup, or `nabla dataset delete {name}` and add the same files "
        "again with `nabla dataset add`",
        dataset=name,
    )


def open_stored_file(directory: Path, filename: str) -> BinaryIO:
    """Opens a file of the data set in `directory`, which has the data set's name.

    Raises:
        StoredDatasetError: It is gone, or must not be read.
        OSError: It cannot be read now.
    """
    path = directory / filename
    try:
        return open_stored(path)
    except OSError as error:
        if error.errno not in _LASTING:
            raise
        what = f"is gone: {path} is not there" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise damaged_dataset(directory.name, what) from error


def require_intact(dataset: datasets_pb.Dataset, directory: Path) -> None:
    """Reads features and targets of a data set, and compares them with its digest.

    Raises:
        StoredDatasetError: A file is gone, or not what was stored.
        OSError: One cannot be read now.
    """
    with ExitStack() as stack:
        came = sha256_of([stack.enter_context(open_stored_file(directory, name)) for name in ROW_FILES])
    if dataset.sha256 and came != dataset.sha256:
        names = " and ".join(ROW_FILES)
        raise damaged_dataset(
            directory.name,
            f"is damaged: {names} in {directory} have SHA-256 {came}, but were stored with {dataset.sha256}",
        )


class DatasetVerifier:
    """Compares data sets with their digests, each once for as long as its files are not touched."""

    def __init__(self) -> None:
        self._intact: dict[tuple[Path, str], Sequence[_Facts]] = {}

    def require_intact(self, dataset: datasets_pb.Dataset, directory: Path) -> None:
        """As the function of this name; may be called from several threads."""
        facts = _facts(directory)
        if facts and self._intact.get((directory, dataset.sha256)) == facts:
            return
        require_intact(dataset, directory)
        # Looked at before the files were read: what changed meanwhile is read again.
        self._intact[directory, dataset.sha256] = facts


def _facts(directory: Path) -> Sequence[_Facts]:
    """Of the files with rows; nothing if one cannot be looked at, which opening it then tells."""
    try:
        found = [(directory / name).stat() for name in ROW_FILES]
    except OSError:
        return ()
    return [(each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns) for each in found]
