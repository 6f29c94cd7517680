"""Stored form of a data set: converts the files that a client sent.

The stored form is a directory with

- ``features.npy``: rows × features, C order; uint8, float32 or float64 (see `service.datasets.samples.stored_dtype`),
- ``targets.npy``: class labels (rows,) as int64, or values (rows, target columns) as float64,
- ``statistics.npz``: statistics of each feature, for scaling; not for rows that are only predicted.

Files are checked and converted block by block, so that memory does not depend on their size.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nablad.v1.datasets_pb2 import DataFiles
from service.datasets.formats import open_samples
from service.datasets.limits import DEFAULT_LIMIT_BYTES, check_room
from service.datasets.numpy_files import npy_writer
from service.datasets.samples import Samples
from service.datasets.staged_files import StagedFile
from service.datasets.statistics import compute_statistics, save_statistics
from service.datasets.targets import resolve_targets, value_range
from service.storage.digests import sha256_of


@dataclass(frozen=True)
class StoredData:
    """Description of a stored data set, with the fields of the message Dataset.

    Attributes:
        rows: Number of samples.
        features: Number of features.
        classes: Number of classes; 0 if the targets are values, or there are none.
        target_columns: Number of target columns if they are values; 0 if they are labels, or there are none.
        feature_dtype: Stored type of the features, by numpy's name.
        size_bytes: Size of the two .npy files, in bytes.
        sha256: SHA-256 over the bytes of features.npy and then targets.npy.
        target_minimum: Smallest target if they are values.
        target_maximum: Largest target if they are values.
        statistics_sha256: SHA-256 over the bytes of statistics.npz; empty if there is none.
    """

    rows: int
    features: int
    classes: int
    target_columns: int
    feature_dtype: str
    size_bytes: int
    sha256: str
    target_minimum: float | None = None
    target_maximum: float | None = None
    statistics_sha256: str = ""

    @property
    def has_targets(self) -> bool:
        """True if there are targets."""
        return bool(self.classes or self.target_columns)


def store_dataset(
    files: Sequence[StagedFile], options: DataFiles, directory: Path, limit_bytes: int = DEFAULT_LIMIT_BYTES
) -> StoredData:
    """Stores a data set for training, with targets and statistics, safe from a power cut.

    Args:
        files: Features and targets; see `service.datasets.formats.open_samples`.
        options: Options of reading; ``options.files`` is not used.
        directory: Must not exist; made here, and removed again when this raises.
        limit_bytes: The most that the data set may take on the disk.

    Raises:
        DatasetError: The files cannot become a data set; the message says why.
        DatasetTooLargeError: They hold too much.
        OSError: The disk does not take them.
    """
    with _new(directory):
        with _scratch(directory) as scratch:
            stored = _convert(open_samples(files, options, scratch, limit_bytes), options, directory, limit_bytes)
        features = np.load(directory / "features.npy", mmap_mode="r", allow_pickle=False)
        statistics = save_statistics(compute_statistics(features), directory)
        _flush(directory)
        return replace(stored, statistics_sha256=_sha256(statistics))


def read_for_prediction(
    files: Sequence[StagedFile],
    options: DataFiles,
    directory: Path,
    features: int,
    limit_bytes: int = DEFAULT_LIMIT_BYTES,
) -> StoredData:
    """Stores rows for a model to predict, with targets to compare with or without.

    A CSV file with one column more than features has targets; of the other formats, those files or archives that hold
    them. Without targets, targets.npy holds values (rows, 0).

    Args:
        files: As for `store_dataset`, or features alone.
        options: How to read them.
        directory: Must not exist; made here, and removed again when this raises.
        features: Number of features that the model takes.
        limit_bytes: The most that the rows may take on the disk.

    Raises:
        DatasetError: The files do not fit the model or cannot be read; the message says why.
        DatasetTooLargeError: They hold too much.
        OSError: The disk does not take them.
    """
    with _new(directory), _scratch(directory) as scratch:
        return _convert(open_samples(files, options, scratch, limit_bytes, features), options, directory, limit_bytes)


def _convert(samples: Samples, options: DataFiles, directory: Path, limit_bytes: int) -> StoredData:
    # Labels are written beside the values that they are made of.
    target_bytes = 8 * samples.rows if samples.target_columns else 0
    check_room(samples.name, samples.size_bytes + target_bytes, directory, limit_bytes)
    features_path, targets_path = directory / "features.npy", directory / "targets.npy"
    with (
        npy_writer(features_path, samples.dtype, (samples.rows, samples.features)) as append_features,
        npy_writer(targets_path, np.dtype(np.float64), (samples.rows, samples.target_columns)) as append_targets,
    ):
        for features, targets in samples.blocks():
            append_features(features)
            append_targets(targets)
    classes = resolve_targets(targets_path, samples.targets_name, options) if samples.target_columns else 0
    smallest, largest = value_range(targets_path) if samples.target_columns and not classes else (None, None)
    return StoredData(
        rows=samples.rows,
        features=samples.features,
        classes=classes,
        target_columns=0 if classes else samples.target_columns,
        feature_dtype=samples.dtype.name,
        size_bytes=features_path.stat().st_size + targets_path.stat().st_size,
        sha256=_sha256(features_path, targets_path),
        target_minimum=smallest,
        target_maximum=largest,
    )


def _sha256(*paths: Path) -> str:
    with ExitStack() as stack:
        return sha256_of([stack.enter_context(path.open("rb")) for path in paths])


@contextmanager
def _new(directory: Path) -> Iterator[None]:
    """Makes the directory, and removes it with all that is in it when something is raised."""
    directory.mkdir(parents=True)
    try:
        yield
    except BaseException:
        shutil.rmtree(directory)
        raise


@contextmanager
def _scratch(directory: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        yield Path(scratch)


def _flush(directory: Path) -> None:
    """Waits until the files of the directory and their names are on the disk."""
    for path in (*directory.iterdir(), directory):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
