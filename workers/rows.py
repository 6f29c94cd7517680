"""Rows of a data set as workers read them: memory-mapped and scaled, without allocating in a step."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nablad.v1 import parameter_server_pb2 as ps_pb
from workers.native.gather import NativeGather

__all__ = ["Rows", "RowsError", "map_array"]

_ScalingStep = tuple[np.ufunc, NDArray[Any]]

# Numbers in the copies of a shift or factor for several rows: many rows at a time, and small enough for the L2 cache. A
# ufunc that broadcasts row by row takes twice as long.
_SPREAD_NUMBERS = 1 << 16


class RowsError(ValueError):
    """Error: a file of rows is damaged, or belongs to another data set."""


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
        self._shift = _operand("shift", scaling.shift, 0, dataset.features, self._dtype)
        self._factor = _operand("factor", scaling.factor, 1, dataset.features, self._dtype)
        self._gather = NativeGather if NativeGather.can_gather(self._features, self._targets) else NumpyGather
        self._gathers: dict[int, NativeGather | NumpyGather] = {}  # by number of rows

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
        gather = self._gather_of(len(index))
        if not gather.gather_rows(index):
            raise IndexError(f"Rows go from 0 to {self.count - 1}, but {index.min()} to {index.max()} were asked for.")
        return gather.x, gather.targets

    def read_slice(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Reads the rows from `start` up to, but not including, `stop`; see `read_rows`.

        Raises:
            IndexError: The slice is not within the rows.
        """
        if not 0 <= start <= stop <= self.count:
            raise IndexError(f"Rows go from 0 to {self.count - 1}, but {start} to {stop - 1} were asked for.")
        gather = self._gather_of(stop - start)
        gather.gather_slice(start)
        return gather.x, gather.targets

    def stored(self, index: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Returns features and targets of these rows as the data set has them, neither converted nor scaled."""
        return self._features[index], self._targets[index]

    def _gather_of(self, count: int) -> "NativeGather | NumpyGather":
        if count not in self._gathers:
            tables = (self._features, self._targets)
            self._gathers[count] = self._gather(*tables, self._shift, self._factor, count, self._dtype)
        return self._gathers[count]


class NumpyGather:
    """Gathers as `NativeGather` does, in several passes. Stored and computed rows are one array if types agree."""

    def __init__(
        self,
        features: NDArray[Any],
        targets: NDArray[Any],
        shift: NDArray[Any] | None,
        factor: NDArray[Any] | None,
        count: int,
        dtype: np.dtype[Any],
    ) -> None:
        self._features, self._targets = features, targets
        self._scaling: list[_ScalingStep] = []
        if shift is not None:
            self._scaling.append((np.subtract, _spread(shift)))
        if factor is not None:
            self._scaling.append((np.multiply, _spread(factor)))
        self._stored_x = np.empty((count, *features.shape[1:]), features.dtype)
        self._stored_targets = np.empty((count, *targets.shape[1:]), targets.dtype)
        self.x = _computed(self._stored_x, dtype)
        self.targets = self._stored_targets if targets.ndim == 1 else _computed(self._stored_targets, dtype)

    def gather_rows(self, index: NDArray[np.intp]) -> bool:
        """Gathers the rows of these numbers, shape (count,); returns False, gathering nothing, if one is not there."""
        # One check for both ends: as an unsigned number, a negative one is above any count.
        if len(index) and np.maximum.reduce(index.view(np.uintp)) >= len(self._features):
            return False
        # Within the range, "clip" changes nothing; "raise" would take through a copy of the output.
        np.take(self._features, index, axis=0, out=self._stored_x, mode="clip")
        np.take(self._targets, index, axis=0, out=self._stored_targets, mode="clip")
        self._compute()
        return True

    def gather_slice(self, start: int) -> bool:
        """Gathers the rows from `start` on; returns False, gathering nothing, if they are not all there."""
        if not 0 <= start <= len(self._features) - len(self._stored_x):
            return False
        stop = start + len(self._stored_x)
        np.copyto(self._stored_x, self._features[start:stop])
        np.copyto(self._stored_targets, self._targets[start:stop])
        self._compute()
        return True

    # A number that the type cannot hold makes the cost infinite; `workers.overflow` then finds the row.
    @np.errstate(over="ignore", invalid="ignore")
    def _compute(self) -> None:
        """Converts stored rows to the type of the computation, the features to (x - shift) * factor."""
        if self.x is not self._stored_x:
            np.copyto(self.x, self._stored_x, casting="same_kind")
        if self.targets is not self._stored_targets:
            np.copyto(self.targets, self._stored_targets, casting="same_kind")
        for operation, operand in self._scaling:
            _apply(operation, self.x, operand)


def _computed(stored: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    return stored if stored.dtype == dtype else np.empty(stored.shape, dtype)


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


def _operand(name: str, numbers: Any, neutral: int, features: int, dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """Returns the shift or factor in `dtype`, shape (1,) or (features,); None if it is neutral and changes nothing."""
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
    return rounded if (rounded != neutral).any() else None
