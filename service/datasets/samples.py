"""Samples: features and targets of the same rows, in blocks, converted to their stored types."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.datasets.limits import rows_per_block, shape_text
from service.datasets.staged_files import DatasetError


class Source(Protocol):
    """Reader of a file of numbers in rows, whose shape is known and checked before a number is read."""

    @property
    def name(self) -> str:
        """Name of the file, as messages show it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array, rows first."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers: real numbers of any kind."""

    def blocks(self, rows: int) -> Iterator[NDArray[Any]]:
        """Yields all rows in order, ``rows`` at a time: arrays (rows, …), the last one shorter.

        Each array is valid until the next one is requested.

        Raises:
            DatasetError: The file is damaged.
        """


#: Features (rows, features) and targets (rows, target columns) of some consecutive rows.
Block = tuple[NDArray[Any], NDArray[np.float64]]


@dataclass(frozen=True)
class Samples:
    """The content of a data set, before it is known whether its targets are labels.

    Attributes:
        name: Name of the file with the features, as messages show it.
        targets_name: Name of the file with the targets.
        rows: Number of samples.
        features: Number of features.
        target_columns: Number of target columns; 0 if there are no targets.
        dtype: Stored type of the features.
        blocks: Reads all rows once, in blocks whose size depends on the number of columns alone. All numbers are
            finite.
    """

    name: str
    targets_name: str
    rows: int
    features: int
    target_columns: int
    dtype: np.dtype[Any]
    blocks: Callable[[], Iterator[Block]]

    @property
    def size_bytes(self) -> int:
        """Size of the stored numbers, in bytes."""
        return self.rows * (self.features * self.dtype.itemsize + self.target_columns * 8)


def stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Returns the stored type of features of ``dtype``.

    uint8, float32 and float64 stay. What fits exactly into float32 becomes that: bool, int8, int16, uint16, float16.
    All else becomes float64: int32, int64, uint32, uint64 and longer floats.
    """
    if dtype == np.uint8:
        return np.dtype(np.uint8)
    return np.dtype(np.float32 if np.can_cast(dtype, np.float32, casting="safe") else np.float64)


def side_by_side(features: Source, targets: Source | None) -> Samples:
    """Returns samples from two files, or two arrays, one with features and one with targets.

    Args:
        features: Two or more dimensions; those after the first are flattened.
        targets: One or two dimensions.

    Raises:
        DatasetError: The dimensions are wrong, or the numbers of rows differ.
    """
    if len(features.shape) < 2:
        raise DatasetError(
            f"{features.name} holds {shape_text(features.shape)} numbers in one dimension, but features need two or "
            f"more, rows and columns; give the file of the features first, then that of the targets."
        )
    if targets is not None:
        _check_targets(features, targets)
    rows, columns = features.shape[0], math.prod(features.shape[1:])
    target_columns = 0 if targets is None else math.prod(targets.shape[1:])
    dtype = stored_dtype(features.dtype)
    size = rows_per_block(columns + target_columns)
    targets_name = features.name if targets is None else targets.name

    def blocks() -> Iterator[Block]:
        pairs = zip(features.blocks(size), _target_blocks(targets, rows, size), strict=True)
        for number, (x, y) in enumerate(pairs):
            yield (
                _finite(features.name, _converted(x, dtype), number * size),
                _finite(targets_name, _converted(y, np.dtype(np.float64)), number * size),
            )

    return Samples(features.name, targets_name, rows, columns, target_columns, dtype, blocks)


def split(table: Source, target: int | None) -> Samples:
    """Returns samples from one table of numbers.

    Args:
        table: Two dimensions, all its numbers finite.
        target: Number of the target column; None if all columns are features.

    Raises:
        DatasetError: The target is the only column.
    """
    rows, columns = table.shape
    if target is None:
        return side_by_side(table, None)
    if columns < 2:
        raise DatasetError(
            f"{table.name} has a single column, but at least one feature and one target are expected; separate the "
            f"columns by commas, semicolons or tabs."
        )

    def blocks() -> Iterator[Block]:
        for block in table.blocks(rows_per_block(columns)):
            yield np.delete(block, target, axis=1), block[:, target : target + 1].copy()

    return Samples(table.name, table.name, rows, columns - 1, 1, np.dtype(np.float64), blocks)


def _check_targets(features: Source, targets: Source) -> None:
    if len(targets.shape) > 2:
        raise DatasetError(
            f"{targets.name} holds {shape_text(targets.shape)} numbers, but targets have one dimension, or two: rows "
            f"and columns; give the file of the features first, then that of the targets."
        )
    if targets.shape[0] != features.shape[0]:
        raise DatasetError(
            f"{targets.name} holds {targets.shape[0]:,} targets, but {features.name} holds {features.shape[0]:,} rows "
            f"of features; give two files that belong together."
        )


def _target_blocks(targets: Source | None, rows: int, size: int) -> Iterator[NDArray[Any]]:
    if targets is not None:
        yield from targets.blocks(size)
        return
    for start in range(0, rows, size):
        yield np.empty((min(size, rows - start), 0))


def _converted(block: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Returns the block (rows, …) as (rows, columns) of ``dtype``. Numbers out of range become infinite."""
    with np.errstate(over="ignore"):
        return block.reshape(len(block), math.prod(block.shape[1:])).astype(dtype)


def _finite(name: str, block: NDArray[Any], first_row: int) -> NDArray[Any]:
    """Returns the block (rows, columns) itself, if all its numbers are finite; else raises DatasetError."""
    if block.dtype.kind == "f":
        finite = np.isfinite(block)
        if not finite.all():
            row, column = (int(place) for place in np.argwhere(~finite)[0])
            raise DatasetError(
                f"{name} holds {block[row, column]} in row {first_row + row:,}, column {column:,} (both counted from "
                f"0), where a finite number is expected; fill the gap or drop the row."
            )
    return block
