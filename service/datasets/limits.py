"""Limits of data sets, checked before memory or disk is used."""

import math
import shutil
from pathlib import Path

from service.datasets.staged_files import DatasetError, DatasetTooLargeError

#: Largest size of one stored data set on the disk, in bytes.
DEFAULT_LIMIT_BYTES = 64 * 2**30
#: Largest number of nodes in a layer, and so of columns of features or targets. It bounds the memory of one row.
MAXIMUM_COLUMNS = 1_000_000
#: Numbers in one block of rows; 4 MiB as float64.
BLOCK_NUMBERS = 2**19


def rows_per_block(columns: int) -> int:
    """Returns the rows of ``columns`` numbers in a block. It depends on nothing else, so statistics do not either."""
    return max(1, BLOCK_NUMBERS // columns)


def check_shape(name: str, shape: tuple[int, ...]) -> None:
    """Rejects an array without rows, or with rows that are too long for any layer.

    Args:
        name: Of the file, as it is quoted.
        shape: Shape of the array, rows first.

    Raises:
        DatasetError: The array has no numbers.
        DatasetTooLargeError: A row is longer than ``MAXIMUM_COLUMNS``.
    """
    if not shape or math.prod(shape) < 1:
        raise DatasetError(
            f"{name} holds no rows of numbers (its shape is {shape}), but a data set needs at least one; "
            f"check how the file was made."
        )
    columns = math.prod(shape[1:])
    if columns > MAXIMUM_COLUMNS:
        raise DatasetTooLargeError(
            f"{name} holds rows of {columns:,} numbers, but a layer has at most {MAXIMUM_COLUMNS:,} nodes; "
            f"give fewer features."
        )


def check_room(name: str, needed_bytes: int, directory: Path, limit_bytes: int) -> None:
    """Rejects data larger than the limit, or than the free space on the disk of ``directory``.

    Args:
        name: Of the file, as it is quoted.
        needed_bytes: Size of the data under ``directory``, in bytes.
        directory: An existing directory.
        limit_bytes: Largest size of one data set, in bytes.

    Raises:
        DatasetTooLargeError: The limit or the disk is too small.
    """
    if needed_bytes > limit_bytes:
        raise DatasetTooLargeError(
            f"{name} would take {needed_bytes:,} bytes, but the service keeps at most {limit_bytes:,} bytes of one "
            f"data set; register fewer rows, or raise the service's limit."
        )
    free_bytes = shutil.disk_usage(directory).free
    if needed_bytes > free_bytes:
        raise DatasetTooLargeError(
            f"{name} would take {needed_bytes:,} bytes, but the disk of the service has {free_bytes:,} bytes free; "
            f"free some space there, or register fewer rows."
        )


def shape_text(shape: tuple[int, ...]) -> str:
    """Returns a shape as text: ``60,000 × 28 × 28``."""
    return " × ".join(f"{length:,}" for length in shape)
