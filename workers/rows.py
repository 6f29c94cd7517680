"""Rows of a data set as workers read them: memory-mapped and scaled, without allocating in a step."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nablad.v1 import parameter_server_pb2 as ps_pb

__all__ = ["Rows", "RowsError", "map_array"]

_ScalingStep = tuple[np.ufunc, NDArray[Any]]

# Numbers in the copies of a shift or factor for several rows: many rows at a time, and small enough for the L2 cache. A
# ufunc that broadcasts row by row takes twice as long.
_SPREAD_NUMBERS = 1 << 16


class RowsError(ValueError):
    """Error: a file of rows is damaged, or belongs to another data set."""


@dataclass(frozen=True)
class _RowBuffers:
    """Buffers for a number of rows, in the stored type and in the type of the computation; one array if they agree."""

    stored_x: NDArray[Any]
    x: NDArray[Any]
    stored_targets: NDArray[Any]
    targets: NDArray[Any]


class Rows:
    """Rows of one data set.

    Attributes:
        count: Number of rows.
        labelled: True if the targets are class labels.

    Args:
        source: Description of the data set, and its directory.
        scaling: Shift and factor, one value each for all features or one for each feature.
        dtype: Type of the computation, float32 or float64.

    Raises:
        FileNotFoundError: The directory cannot be reached from this host.
        RowsError: The files are damaged, or not those of the data set that `source` describes.
        ValueError: The features cannot be scaled in `dtype`.
    """

    def __init__(self, source: ps_pb.DataSource, scaling: ps_pb.FeatureScaling, dtype: DTypeLike) -> None:
        dataset, directory = source.dataset, Path(source.directory)
        self.count = dataset.rows
        self.labelled = dataset.classes > 0
        self._dtype = np.dtype(dtype)
        self._features = _mapped(directory / "features.npy", (self.count, dataset.features), dataset.feature_dtype)
        if self.labelled:
            self._targets = _mapped(directory / "targets.npy", (self.count,), "int64")
        else:
            self._targets = _mapped(directory / "targets.npy", (self.count, dataset.target_columns), "float64")
        self._scaling = _scaling_steps(scaling, dataset.features, self._dtype)
        self._buffers: dict[int, _RowBuffers] = {}

    def read_rows(self, index: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Reads the rows of these numbers, in this order.

        Args:
            index: Row numbers from 0, shape (n,).

        Returns:
            Features x (n, features), scaled, and targets: labels (n,), int64, or values (n, columns). Both are valid
            until the same number of rows is read again.

        Raises:
            IndexError: A number is not below `count`, or is negative.
        """
        # One check for both ends: as an unsigned number, a negative one is above any count.
        if np.maximum.reduce(index.view(np.uintp)) >= self.count:
            raise IndexError(f"Rows go from 0 to {self.count - 1}, but {index.min()} to {index.max()} were asked for.")
        buffers = self._buffers_for(len(index))
        # Within the range, "clip" changes nothing; "raise" would take through a copy of the output.
        np.take(self._features, index, axis=0, out=buffers.stored_x, mode="clip")
        np.take(self._targets, index, axis=0, out=buffers.stored_targets, mode="clip")
        return self._computable(buffers)

    def read_slice(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Reads the rows from `start` up to, but not including, `stop`; see `read_rows`.

        Raises:
            IndexError: The slice is not within the rows.
        """
        if not 0 <= start <= stop <= self.count:
            raise IndexError(f"Rows go from 0 to {self.count - 1}, but {start} to {stop - 1} were asked for.")
        buffers = self._buffers_for(stop - start)
        np.copyto(buffers.stored_x, self._features[start:stop])
        np.copyto(buffers.stored_targets, self._targets[start:stop])
        return self._computable(buffers)

    def stored(self, index: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Returns features and targets of these rows as the data set has them, neither converted nor scaled."""
        return self._features[index], self._targets[index]

    def _buffers_for(self, count: int) -> _RowBuffers:
        if count not in self._buffers:
            stored_x = np.empty((count, *self._features.shape[1:]), self._features.dtype)
            stored_targets = np.empty((count, *self._targets.shape[1:]), self._targets.dtype)
            self._buffers[count] = _RowBuffers(
                stored_x,
                self._like(stored_x),
                stored_targets,
                stored_targets if self.labelled else self._like(stored_targets),
            )
        return self._buffers[count]

    def _like(self, stored: NDArray[Any]) -> NDArray[Any]:
        return stored if stored.dtype == self._dtype else np.empty(stored.shape, self._dtype)

    def _computable(self, buffers: _RowBuffers) -> tuple[NDArray[Any], NDArray[Any]]:
        """Converts stored rows to the type of the computation, the features to (x - shift) * factor."""
        if buffers.x is not buffers.stored_x:
            np.copyto(buffers.x, buffers.stored_x, casting="same_kind")
        if buffers.targets is not buffers.stored_targets:
            np.copyto(buffers.targets, buffers.stored_targets, casting="same_kind")
        for operation, operand in self._scaling:
            _apply(operation, buffers.x, operand)
        return buffers.x, buffers.targets


def map_array(path: Path) -> NDArray[Any]:
    """Maps the array in `path`; its memory belongs to the page cache.

    Raises:
        FileNotFoundError: The file cannot be reached from this host.
        RowsError: The file is damaged.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path} is not there; the service's data directory must be reachable, under the same path, from every "
            f"host that runs workers."
        ) from error
    except Exception as error:  # numpy raises many kinds of errors for damaged files
        raise RowsError(f"{path} is damaged ({error!r:.200}); register the data set again.") from error
    if not isinstance(array, np.ndarray):
        array.close()  # several arrays in an archive
        raise RowsError(f"{path} is damaged (it holds no single array); register the data set again.")
    # As a plain array, because each view of a memmap costs a Python call.
    return np.asarray(array)


def _mapped(path: Path, shape: tuple[int, ...], dtype_name: str) -> NDArray[Any]:
    """Maps the array in `path`, and checks its shape and type."""
    array = map_array(path)
    if array.shape != shape or array.dtype.name != dtype_name or not array.flags.c_contiguous:
        raise RowsError(
            f"{path} should hold {shape} numbers of type {dtype_name}, but holds {array.shape} of type "
            f"{array.dtype.name}; the data directory of another service may be mounted here."
        )
    return array


def _scaling_steps(scaling: ps_pb.FeatureScaling, features: int, dtype: np.dtype[Any]) -> list[_ScalingStep]:
    """Returns the operations of (x - shift) * factor; an operation that changes nothing is left out."""
    steps = (
        (np.subtract, _operand("shift", scaling.shift, features, dtype), 0),
        (np.multiply, _operand("factor", scaling.factor, features, dtype), 1),
    )
    return [(operation, _spread(operand)) for operation, operand, neutral in steps if (operand != neutral).any()]


def _spread(operand: NDArray[Any]) -> NDArray[Any]:
    """Shapes one number for all features as (); numbers by feature as (rows, features), the same in every row."""
    if len(operand) == 1:
        return operand.reshape(())
    return np.tile(operand, (max(1, _SPREAD_NUMBERS // len(operand)), 1))


def _apply(operation: np.ufunc, x: NDArray[Any], operand: NDArray[Any]) -> None:
    """Combines x (n, features) with the operand, in place."""
    if operand.ndim == 0:
        operation(x, operand, out=x)
        return
    for start in range(0, len(x), len(operand)):
        rows = x[start : start + len(operand)]
        operation(rows, operand[: len(rows)], out=rows)


def _operand(name: str, numbers: Any, features: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Returns the shift or factor in `dtype`, shape (1,) or (features,)."""
    exact = np.array(numbers, np.float64)
    if exact.shape not in ((1,), (features,)):
        raise ValueError(
            f"The scaling should have 1 {name} or {features}, one for each feature, but has {len(exact)}; it was "
            f"fitted to another data set."
        )
    with np.errstate(over="ignore"):
        rounded = exact.astype(dtype)
    if not np.isfinite(rounded).all():
        raise ValueError(
            f"The {name} {exact[~np.isfinite(rounded)][0]} of the scaling is beyond {dtype.name}; let the model "
            f"compute in float64, or bring the feature into another unit."
        )
    return rounded
