"""Statistics of each feature, for scaling; computed once, when a data set is registered."""

import dataclasses
import hashlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.datasets.integrity import damaged_dataset, open_stored_file
from service.datasets.limits import rows_per_block

_FILENAME = "statistics.npz"


@dataclass(frozen=True)
class Statistics:
    """Statistics of the features of a data set, in float64.

    Attributes:
        minimum: Smallest value, (features,).
        maximum: Largest value, (features,).
        mean: Mean, (features,).
        standard_deviation: Standard deviation of the population, with the number of rows as divisor, (features,).
    """

    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    mean: NDArray[np.float64]
    standard_deviation: NDArray[np.float64]

    def pooled(self) -> "Statistics":
        """Returns the statistics over all features together; arrays (1,)."""
        mean = self.mean.mean(keepdims=True)
        variance = (self.standard_deviation**2 + (self.mean - mean) ** 2).mean(keepdims=True)
        return Statistics(
            self.minimum.min(keepdims=True), self.maximum.max(keepdims=True), mean, np.sqrt(variance)
        )._with_exact_constants()

    def _with_exact_constants(self) -> "Statistics":
        """Returns the statistics with the exact value as mean of constant features, and deviation 0."""
        constant = self.minimum == self.maximum
        return dataclasses.replace(
            self,
            mean=np.where(constant, self.minimum, self.mean),
            standard_deviation=np.where(constant, 0.0, self.standard_deviation),
        )


_NAMES = tuple(field.name for field in dataclasses.fields(Statistics))


def compute_statistics(features: NDArray[Any]) -> Statistics:
    """Computes the statistics of features (rows, columns), which may be memory-mapped.

    Blocks of a fixed size are merged from first to last, so that equal features have equal statistics. With n rows of
    mean m and summed squared deviations S before, and n', m', S' of the next block:

        d = m' − m,   m ← m + d n'/(n + n'),   S ← S + S' + d² n n'/(n + n')

    (Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample variances, 1979.) Numbers
    that float64 cannot hold become infinite or NaN.
    """
    columns = features.shape[1]
    minimum, maximum = np.full(columns, np.inf), np.full(columns, -np.inf)
    mean, squares = np.zeros(columns), np.zeros(columns)
    size = rows_per_block(columns)
    with np.errstate(over="ignore", invalid="ignore"):
        for before in range(0, len(features), size):
            block = features[before : before + size].astype(np.float64)
            np.minimum(minimum, block.min(axis=0), out=minimum)
            np.maximum(maximum, block.max(axis=0), out=maximum)
            block_mean = block.mean(axis=0)
            block -= block_mean
            share = len(block) / (before + len(block))
            difference = block_mean - mean
            mean += difference * share
            squares += np.square(block, out=block).sum(axis=0) + difference**2 * (before * share)
        deviation = np.sqrt(squares / len(features))
    return Statistics(minimum, maximum, mean, deviation)._with_exact_constants()


def save_statistics(statistics: Statistics, directory: Path) -> Path:
    """Writes the statistics beside the features. Returns the file's path."""
    path = directory / _FILENAME
    np.savez(path, allow_pickle=False, **vars(statistics))
    return path


def load_statistics(directory: Path, sha256: str = "") -> Statistics:
    """Reads the statistics of the data set in ``directory``.

    Args:
        directory: Directory of the data set, with its name.
        sha256: Digest of the statistics, in hexadecimal; empty for data sets of earlier releases.

    Raises:
        StoredDatasetError: The statistics are gone, or not what was stored.
        OSError: The statistics cannot be read now.
    """
    with open_stored_file(directory, _FILENAME) as file:
        data = file.read()
    came = hashlib.sha256(data).hexdigest()
    if sha256 and came != sha256:
        what = f"is damaged: {directory / _FILENAME} has SHA-256 {came}, but was stored with {sha256}"
        raise damaged_dataset(directory.name, what)
    try:
        with np.load(BytesIO(data), allow_pickle=False) as arrays:
            statistics = Statistics(**{name: _require_vector(arrays[name]) for name in _NAMES})
    except Exception as error:  # numpy and zipfile raise a dozen kinds for wrong bytes
        what = f"is damaged: {directory / _FILENAME} cannot be read ({error!r:.200})"
        raise damaged_dataset(directory.name, what) from error
    if len({array.shape for array in vars(statistics).values()}) != 1:
        raise damaged_dataset(directory.name, f"is damaged: {directory / _FILENAME} has arrays of several lengths")
    return statistics


def _require_vector(array: NDArray[Any]) -> NDArray[np.float64]:
    if array.dtype != np.float64 or array.ndim != 1:
        raise ValueError(f"{array.shape} numbers of type {array.dtype}")
    return array
