"""What a data set may take, looked at before anything is taken."""

import math
import shutil
from pathlib import Path

from service.datasets.staged_files import DatasetError, DatasetTooLargeError

#: What the stored form of one data set may take on the disk, in bytes.
DEFAULT_LIMIT_BYTES = 64 * 2**30
#: Nodes that a layer may have, and so the columns of features or targets. It bounds the memory that one row takes.
MAXIMUM_COLUMNS = 1_000_000
#: Numbers in the blocks of rows that files are read in; as float64 they take 4 MiB.
BLOCK_NUMBERS = 2**19


def rows_per_block(columns: int) -> int:
    """How many rows of ``columns`` numbers are read at once. Depends on nothing else, so statistics do not either."""
    return max(1, BLOCK_NUMBERS // columns)


def check_shape(name: str, shape: tuple[int, ...]) -> None:
    """Refuses an array without rows, or with rows that no layer could take.

    Args:
        name: Of the file, as it is quoted.
        shape: Rows first.

    Raises:
        DatasetError: It holds no numbers at all.
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
    """Refuses what would take more than the limit, or more than the disk of ``directory`` has free.

    Args:
        name: Of the file, as it is quoted.
        needed_bytes: What it is going to take under ``directory``.
        directory: An existing directory.
        limit_bytes: The most that one data set may take.

    Raises:
        DatasetTooLargeError: One of the two does not suffice.
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
    """A shape in words: ``60,000 × 28 × 28``."""
    return " × ".join(f"{length:,}" for length in shape)
