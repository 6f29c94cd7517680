"""Targets: decides whether they are class labels or values, and stores labels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nablad.v1.datasets_pb2 import TARGET_KIND_LABELS, TARGET_KIND_VALUES, DataFiles
from service.datasets.limits import MAXIMUM_COLUMNS, rows_per_block
from service.datasets.numpy_files import npy_writer
from service.datasets.staged_files import DatasetError

#: Whole numbers in one column are labels if all are below this, unless the client says what they are.
LABELS_BELOW = 1000


def resolve_targets(path: Path, name: str, options: DataFiles) -> int:
    """Decides whether targets are labels or values, and replaces the stored values by labels if they are.

    One column is labels when all its numbers are whole and from 0 to 999, two or more when each row is one-hot (a
    single 1, else 0). ``options.target_kind`` decides otherwise, and a number of classes says that they are labels.

    Args:
        path: The .npy file of the values (rows, columns), float64. Then labels (rows,), int64, if they are.
        name: Name of the client's file, as messages show it.
        options: Options of the client.

    Returns:
        The number of classes; 0 for values.

    Raises:
        DatasetError: The targets should be labels and are not, or do not fit the given number of classes.
    """
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    if options.target_kind == TARGET_KIND_VALUES:
        _reject_classes(name, options.classes)
        return 0
    largest, wrong_row = _survey(values)
    if options.target_kind == TARGET_KIND_LABELS or options.classes:
        if wrong_row is not None:
            raise _not_a_label(name, wrong_row, values[wrong_row])
    elif wrong_row is not None or (values.shape[1] == 1 and largest >= LABELS_BELOW):
        return 0
    classes = _classes(name, values, largest, options.classes)
    _replace_by_labels(path, values)
    return classes


def value_range(path: Path) -> tuple[float, float]:
    """Returns the smallest and the largest value in a .npy file (rows, columns)."""
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    blocks = [(float(block.min()), float(block.max())) for _, block in _blocks(values)]
    return min(low for low, _ in blocks), max(high for _, high in blocks)


def _labels(values: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Returns labels (rows,) for targets (rows, columns), and a mask of the rows that are valid labels."""
    if values.shape[1] == 1:
        column = values[:, 0]
        good = (column >= 0) & (column < MAXIMUM_COLUMNS) & (np.floor(column) == column)
        return np.where(good, column, 0).astype(np.int64), good
    ones = values == 1
    good = (np.count_nonzero(ones, axis=1) == 1) & (np.count_nonzero(values, axis=1) == 1)
    return ones.argmax(axis=1), good


def _blocks(values: NDArray[np.float64]) -> Iterator[tuple[int, NDArray[np.float64]]]:
    rows = rows_per_block(values.shape[1])
    for start in range(0, len(values), rows):
        yield start, values[start : start + rows]


def _survey(values: NDArray[np.float64]) -> tuple[int, int | None]:
    """Returns the largest label, and the first row without a valid label, if any."""
    largest = 0
    for start, block in _blocks(values):
        labels, good = _labels(block)
        if not good.all():
            return largest, start + int(good.argmin())
        largest = max(largest, int(labels.max()))
    return largest, None


def _classes(name: str, values: NDArray[np.float64], largest: int, given: int) -> int:
    """Returns the number of classes: as given, else the columns of one-hot rows, else by the largest label."""
    if not given:
        return values.shape[1] if values.shape[1] > 1 else largest + 1
    if given > MAXIMUM_COLUMNS:
        raise DatasetError(f"There can be at most {MAXIMUM_COLUMNS:,} classes, but {given:,} were given; give fewer.")
    if largest >= given:
        row = next(
            start + int(_labels(block)[0].argmax()) for start, block in _blocks(values) if _holds(block, largest)
        )
        raise DatasetError(
            f"{name} holds the label {largest:,} in row {row:,} (counted from 0), but with {given:,} classes labels go "
            f"from 0 to {given - 1:,}; give at least {largest + 1:,} classes, or correct the label."
        )
    return given


def _holds(values: NDArray[np.float64], label: int) -> bool:
    return bool((_labels(values)[0] == label).any())


def _replace_by_labels(path: Path, values: NDArray[np.float64]) -> None:
    labels_path = path.with_name("labels.npy")
    with npy_writer(labels_path, np.dtype(np.int64), (len(values),)) as append:
        for _, block in _blocks(values):
            append(_labels(block)[0])
    labels_path.replace(path)


def _reject_classes(name: str, classes: int) -> None:
    if classes:
        raise DatasetError(
            f"{name} should hold values, but {classes:,} classes were given; leave out the one or the other."
        )


def _not_a_label(name: str, row: int, targets: NDArray[Any]) -> DatasetError:
    if len(targets) == 1:
        return DatasetError(
            f"{name} holds {float(targets[0])} in row {row:,} (counted from 0), where a label is expected, a whole "
            f"number from 0 to {MAXIMUM_COLUMNS - 1:,}; correct it, or register the targets as values."
        )
    return DatasetError(
        f"{name} holds {len(targets):,} targets in each row, and those of row {row:,} (counted from 0) are not "
        f"one-hot, a single 1 and else 0; correct them, or register the targets as values."
    )
