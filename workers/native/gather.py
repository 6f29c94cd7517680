"""Gathering of rows in one pass in C, with the bits of the passes in numpy that `workers.rows` makes without it."""

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.native.library import missing_reason, native_library

__all__ = ["NativeGather"]

# `enum nablad_type` of gather.h.
_FEATURE_TYPES = {"uint8": 0, "float32": 1, "float64": 2}
_TARGET_TYPES = {"float64": 2, "int64": 3}


class _Gathering(ctypes.Structure):
    """`struct nablad_gathering` of gather.h, which explains the fields."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("features", "targets", "shift", "factor", "x", "out")),
        *((name, ctypes.c_int64) for name in ("rows", "columns", "target_columns", "count")),
        *((name, ctypes.c_int32) for name in ("stored", "computed", "target")),
    )


class NativeGather:
    """Gathers a fixed number of rows into buffers: features as (x - shift) * factor, and targets.

    Attributes:
        x: Features of the rows gathered last, (count, features), in the type of the computation.
        targets: Their labels (count,), int64, or values (count, columns) in the type of the computation.

    Args:
        features: Table of all rows, (rows, features); `can_gather` said True of it.
        targets: Labels (rows,) or values (rows, columns) of all rows.
        shift: Shape (1,) or (features,), in the type of the computation; None for none.
        factor: Likewise.
        count: Number of rows that are gathered.
        dtype: Type of the computation.
    """

    def __init__(
        self,
        features: NDArray[Any],
        targets: NDArray[Any],
        shift: NDArray[Any] | None,
        factor: NDArray[Any] | None,
        count: int,
        dtype: np.dtype[Any],
    ) -> None:
        labelled = targets.ndim == 1
        self.x = np.empty((count, features.shape[1]), dtype)
        self.targets = np.empty((count, *targets.shape[1:]), targets.dtype if labelled else dtype)
        # Numbers are copied to a known address, because numpy takes longer to tell one.
        self._numbers = np.empty(count, np.int64)
        operands = [
            None if each is None else np.broadcast_to(each, features.shape[1]).copy() for each in (shift, factor)
        ]
        arrays = (features, targets, *operands, self.x, self.targets)
        self._arrays = arrays  # whose memory the C code knows
        self._gathering = _Gathering(
            *(None if array is None else array.ctypes.data for array in arrays),
            *features.shape,
            1 if labelled else targets.shape[1],
            count,
            _FEATURE_TYPES[features.dtype.name],
            _FEATURE_TYPES[dtype.name],
            _TARGET_TYPES[targets.dtype.name],
        )
        self._function = _native_function()
        self._addresses = ctypes.addressof(self._gathering), self._numbers.ctypes.data

    @staticmethod
    def can_gather(features: NDArray[Any], targets: NDArray[Any]) -> bool:
        """Returns True if there is a native library, and the tables are such as it reads."""
        known = features.dtype.name in _FEATURE_TYPES and targets.dtype.name in _TARGET_TYPES
        plain = all(
            table.dtype.isnative and table.flags.c_contiguous and table.flags.aligned for table in (features, targets)
        )
        return known and plain and native_library() is not None

    def gather_rows(self, index: NDArray[np.intp]) -> bool:
        """Gathers the rows of these numbers, shape (count,); returns False, gathering nothing, if one is not there."""
        np.copyto(self._numbers, index)
        return bool(self._function(*self._addresses, 0) == 0)

    def gather_slice(self, start: int) -> bool:
        """Gathers the rows from `start` on; returns False, gathering nothing, if they are not all there."""
        return bool(self._function(self._addresses[0], None, start) == 0)


def _native_function() -> Any:
    library = native_library()
    if library is None:
        raise RuntimeError(missing_reason())
    library.nablad_gather.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    return library.nablad_gather
