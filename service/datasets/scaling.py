"""Scaling of a job's features, fitted to its train data set."""

from pathlib import Path
from typing import Any

import numpy as np

from nablad.v1.job_spec_pb2 import SCALING_NONE, SCALING_UNIT, SCALING_UNSPECIFIED, Scaling
from nablad.v1.parameter_server_pb2 import FeatureScaling
from service.datasets.integrity import damaged_dataset
from service.datasets.staged_files import DatasetError
from service.datasets.statistics import Statistics, load_statistics
from workers.rows import RowsError, map_array


def fit_scaling(scaling: Scaling.ValueType, directory: Path, statistics_sha256: str = "") -> FeatureScaling:
    """Returns shift and factor of the scaling (x − shift) · factor.

    Features of type uint8 share one unit, so they get one shift and factor in common, others one for each feature. A
    feature that never changes gets the factor 1 and so becomes 0. Without scaling: a single shift 0 and factor 1.

    Args:
        scaling: Kind of the scaling; unspecified means none.
        directory: Directory of the train data set, as `store_dataset` wrote it.
        statistics_sha256: Digest of its statistics; empty for data sets of earlier releases.

    Raises:
        DatasetError: A feature's spread is too large or too small for float64.
        StoredDatasetError: The files are gone, or not what was stored.
        OSError: The files cannot be read now.
    """
    if scaling in (SCALING_UNSPECIFIED, SCALING_NONE):
        return FeatureScaling(shift=[0.0], factor=[1.0])
    statistics = load_statistics(directory, statistics_sha256)
    if _features_dtype(directory) == np.uint8:
        statistics = statistics.pooled()
    return _unit(statistics) if scaling == SCALING_UNIT else _standard(statistics)


def _features_dtype(directory: Path) -> np.dtype[Any]:
    try:
        return map_array(directory / "features.npy").dtype
    except RowsError as error:
        raise damaged_dataset(directory.name, f"is damaged: {error}") from error
    except FileNotFoundError as error:
        raise damaged_dataset(directory.name, f"is gone: {directory / 'features.npy'} is not there") from error


def _unit(statistics: Statistics) -> FeatureScaling:
    with np.errstate(over="ignore"):
        spread = statistics.maximum - statistics.minimum
    return _scaling(statistics.minimum, spread)


def _standard(statistics: Statistics) -> FeatureScaling:
    return _scaling(statistics.mean, statistics.standard_deviation)


def _scaling(shift: np.ndarray, spread: np.ndarray) -> FeatureScaling:
    with np.errstate(over="ignore"):
        factor = 1.0 / np.where(spread == 0, 1.0, spread)
    unusable = ~(np.isfinite(shift) & np.isfinite(spread) & np.isfinite(factor))
    if unusable.any():
        raise DatasetError(
            f"Feature {int(unusable.argmax()):,} (counted from 0) cannot be scaled, because its spread of "
            f"{spread[unusable.argmax()]} is beyond float64; bring it into another unit, or choose no scaling."
        )
    return FeatureScaling(shift=shift, factor=factor)
