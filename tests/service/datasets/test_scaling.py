"""Scaling against scikit-learn, and its corners."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from nablad.v1.job_spec_pb2 import SCALING_NONE, SCALING_STANDARD, SCALING_UNIT, SCALING_UNSPECIFIED, Scaling
from service.datasets import DatasetError, fit_scaling

Scaled = Callable[[NDArray[Any], Scaling.ValueType], NDArray[np.float64]]


@pytest.fixture
def scaled(stored: Any, npy_bytes: Any, directory: Path) -> Scaled:
    """Features, stored and then scaled by what was fitted to them."""

    def run(x: NDArray[Any], scaling: Scaling.ValueType) -> NDArray[np.float64]:
        stored(("x.npy", npy_bytes(x)), ("y.npy", npy_bytes(np.zeros(len(x)))))
        fitted = fit_scaling(scaling, directory)
        return (x - np.array(fitted.shift)) * np.array(fitted.factor)

    return run


def features() -> NDArray[np.float64]:
    x = np.random.default_rng(3).normal(5, [0.1, 1, 1000, 1e-6], (50, 4))
    return np.column_stack([x, np.full(50, 0.1)])  # The last one never changes.


@pytest.mark.parametrize(
    ("scaling", "reference"), [(SCALING_UNIT, MinMaxScaler()), (SCALING_STANDARD, StandardScaler())]
)
def test_as_scikit_learn(scaled: Scaled, scaling: Scaling.ValueType, reference: Any) -> None:
    """Features that are not pixels are scaled each by its own, as scikit-learn does; a constant one becomes 0."""
    result = scaled(features(), scaling)
    np.testing.assert_allclose(result, reference.fit_transform(features()), rtol=1e-9, atol=1e-9)
    assert (result[:, 4] == 0).all()


@pytest.mark.parametrize("scaling", [SCALING_UNSPECIFIED, SCALING_NONE])
def test_none(stored: Any, npy_bytes: Any, directory: Path, scaling: Scaling.ValueType) -> None:
    """Without scaling, there is a single shift 0 and a single factor 1."""
    stored(("x.npy", npy_bytes(features())), ("y.npy", npy_bytes(np.zeros(50))))
    fitted = fit_scaling(scaling, directory)
    assert (list(fitted.shift), list(fitted.factor)) == ([0.0], [1.0])


def test_pixels_unit(scaled: Scaled) -> None:
    """Pixels share one unit: the smallest of all becomes 0, the largest 1, and equal ones stay equal."""
    x = np.array([[10, 20], [110, 20], [60, 20]], np.uint8)
    assert scaled(x, SCALING_UNIT).tolist() == [[0, 0.1], [1, 0.1], [0.5, 0.1]]


def test_pixels_standard(scaled: Scaled) -> None:
    """Pixels have mean 0 and deviation 1 over all of them together."""
    result = scaled(np.random.default_rng(4).integers(0, 256, (40, 6)).astype(np.uint8), SCALING_STANDARD)
    np.testing.assert_allclose([result.mean(), result.std()], [0, 1], atol=1e-12)


@pytest.mark.parametrize("scaling", [SCALING_UNIT, SCALING_STANDARD])
def test_constant_pixels(scaled: Scaled, scaling: Scaling.ValueType) -> None:
    """Pixels that are all the same become 0."""
    assert not scaled(np.full((5, 3), 7, np.uint8), scaling).any()


@pytest.mark.parametrize(
    ("column", "scaling"),
    [([-1e308, 1e308], SCALING_UNIT), ([-1e200, 1e200], SCALING_STANDARD), ([0, 5e-324], SCALING_UNIT)],
)
def test_beyond_float64(scaled: Scaled, column: list[float], scaling: Scaling.ValueType) -> None:
    """A spread that float64 cannot hold or invert is refused with the feature's number."""
    with pytest.raises(DatasetError, match=r"Feature 1 .* cannot be scaled"):
        scaled(np.column_stack([[1.0, 2.0], column]), scaling)
