"""How the features of a job are scaled, fitted to its train data set."""

from pathlib import Path

import numpy as np

from nablad.v1.job_spec_pb2 import SCALING_NONE, SCALING_UNIT, SCALING_UNSPECIFIED, Scaling
from nablad.v1.parameter_server_pb2 import FeatureScaling
from service.datasets.errors import DatasetError
from service.datasets.statistics import Statistics, load_statistics


def fit_scaling(scaling: Scaling.ValueType, directory: Path) -> FeatureScaling:
    """The shift and factor of (x − shift) · factor.

    Features of type uint8 share one unit, so they get one shift and factor in common, others one for each feature. A
    feature that never changes gets the factor 1 and so becomes 0. Without scaling: a single shift 0 and factor 1.

    Args:
        scaling: Left unspecified, none.
        directory: Of the train data set, as `service.datasets.store` leaves it.

    Raises:
        DatasetError: A feature's spread is too large or too small for float64.
    """
    if scaling in (SCALING_UNSPECIFIED, SCALING_NONE):
        return FeatureScaling(shift=[0.0], factor=[1.0])
    statistics = load_statistics(directory)
    if np.load(directory / "features.npy", mmap_mode="r", allow_pickle=False).dtype == np.uint8:
        statistics = statistics.pooled()
    return _unit(statistics) if scaling == SCALING_UNIT else _standard(statistics)


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
