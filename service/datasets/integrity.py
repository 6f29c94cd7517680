"""Integrity of stored data sets: compares their files with the digests of their registration."""

import errno
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final

from nablad.v1 import datasets_pb2 as datasets_pb
from service.errors import StoredDatasetError
from service.storage.digests import open_stored, sha256_of

__all__ = ["ROW_FILES", "DatasetVerifier", "damaged_dataset", "open_stored_file", "require_intact"]

#: Files that the digest of a data set covers, in this order.
ROW_FILES: Final = ("features.npy", "targets.npy")
# Errors that reading again does not resolve. Others, for example of a remote file system, may pass.
_LASTING: Final = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EPERM)

# Facts of a file that change when it is written or replaced.
_Facts = tuple[int, ...]


def damaged_dataset(name: str, what: str) -> StoredDatasetError:
    """Returns the error that says what is wrong with a data set, and what to do."""
    return StoredDatasetError(
        f"data set {name!r} {what}; restore it from a backup, or `nabla dataset delete {name}` and add the same files "
        "again with `nabla dataset add`",
        dataset=name,
    )


def open_stored_file(directory: Path, filename: str) -> BinaryIO:
    """Opens a file of the data set in `directory`, which has the data set's name.

    Raises:
        StoredDatasetError: The file is gone, or must not be read.
        OSError: The file cannot be read now.
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
        OSError: A file cannot be read now.
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
    """Compares data sets with their digests, each only once while its files do not change."""

    def __init__(self) -> None:
        self._intact: dict[tuple[Path, str], Sequence[_Facts]] = {}

    def require_intact(self, dataset: datasets_pb.Dataset, directory: Path) -> None:
        """Returns if a data set is intact, as the function of this name does. May be called from several threads."""
        facts = _facts(directory)
        if facts and self._intact.get((directory, dataset.sha256)) == facts:
            return
        require_intact(dataset, directory)
        # The facts are from before the reading, so that a file that changed meanwhile is read again.
        self._intact[directory, dataset.sha256] = facts


def _facts(directory: Path) -> Sequence[_Facts]:
    """Returns facts of the files with rows; empty if one cannot be read, and opening it reports that."""
    try:
        found = [(directory / name).stat() for name in ROW_FILES]
    except OSError:
        return ()
    return [(each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns) for each in found]
