"""Whether targets are labels or values, and how they are stored."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nablad.v1.datasets_pb2 import TARGET_KIND_LABELS, TARGET_KIND_VALUES

Bytes = Callable[..., bytes]
ONE_HOT = np.eye(4)[[2, 0, 2]]


@pytest.fixture
def files(npy_bytes: Bytes) -> Callable[[Any], list[tuple[str, bytes]]]:
    return lambda y: [("x.npy", npy_bytes(np.ones((len(y), 2)))), ("y.npy", npy_bytes(np.asarray(y)))]


@pytest.mark.parametrize(
    ("targets", "options", "expected"),
    [
        ([0, 1, 5], {}, ([0, 1, 5], 6)),
        ([0.0, 1.0, 999.0], {}, ([0, 1, 999], 1000)),
        ([[3], [1], [2]], {}, ([3, 1, 2], 4)),
        ([True, False, True], {}, ([1, 0, 1], 2)),
        (ONE_HOT, {}, ([2, 0, 2], 4)),
        (ONE_HOT.astype(np.uint8), {"target_kind": TARGET_KIND_LABELS}, ([2, 0, 2], 4)),
        ([0, 1, 1000], {"target_kind": TARGET_KIND_LABELS}, ([0, 1, 1000], 1001)),
        ([0, 1, 1000], {"classes": 2000}, ([0, 1, 1000], 2000)),
        ([0, 1, 1], {"classes": 10}, ([0, 1, 1], 10)),
        (ONE_HOT, {"classes": 10}, ([2, 0, 2], 10)),
    ],
)
def test_labels(
    stored: Any, files: Any, targets: Any, options: dict[str, int], expected: tuple[list[int], int]
) -> None:
    """Small whole numbers and one-hot rows are labels, others where the client says so."""
    data, _, kept = stored(*files(targets), **options)
    assert data.target_columns == 0
    assert kept.dtype == np.int64
    assert (kept.tolist(), data.classes) == expected


@pytest.mark.parametrize(
    ("targets", "options"),
    [
        ([0.5, 1.0, 2.0], {}),
        ([-1, 0, 1], {}),
        ([0, 1, 1000], {}),
        ([0, 1, 5], {"target_kind": TARGET_KIND_VALUES}),
        (ONE_HOT, {"target_kind": TARGET_KIND_VALUES}),
        ([[1, 1], [0, 1]], {}),
        ([[0, 0], [0, 1]], {}),
        ([[0.5, 0.5], [0, 1]], {}),
        ([[2, -1], [0, 1]], {}),
        (np.float32([[0.1, 2e30]]), {}),
    ],
)
def test_values(stored: Any, files: Any, targets: Any, options: dict[str, int]) -> None:
    """All else is values: one float64 column each, exactly as they came."""
    data, _, kept = stored(*files(targets), **options)
    expected: NDArray[Any] = np.asarray(targets)
    assert (data.classes, data.target_columns) == (0, kept.shape[1])
    assert kept.dtype == np.float64
    np.testing.assert_array_equal(kept, expected.reshape(len(expected), -1))


@pytest.mark.parametrize(
    ("targets", "options", "parts"),
    [
        ([0, 1.5, 2], {"target_kind": TARGET_KIND_LABELS}, ["1.5 in row 1", "a whole number from 0"]),
        ([0, 1, -2], {"target_kind": TARGET_KIND_LABELS}, ["-2.0 in row 2", "a whole number from 0"]),
        ([0, 1e300], {"target_kind": TARGET_KIND_LABELS}, ["1e+300 in row 1", "from 0 to 999,999"]),
        ([0, 1.5, 2], {"classes": 3}, ["1.5 in row 1"]),
        ([0, 3, 2], {"classes": 3}, ["label 3 in row 1", "from 0 to 2", "at least 4 classes"]),
        (ONE_HOT, {"classes": 2}, ["label 2 in row 0", "at least 3 classes"]),
        ([[0, 1], [1, 1]], {"target_kind": TARGET_KIND_LABELS}, ["2 targets in each row", "row 1", "not one-hot"]),
        ([0, 1], {"classes": 2, "target_kind": TARGET_KIND_VALUES}, ["should hold values, but 2 classes"]),
        ([0, 1], {"classes": 2_000_000}, ["at most 1,000,000 classes"]),
    ],
)
def test_refusals(refused: Any, files: Any, targets: Any, options: dict[str, int], parts: list[str]) -> None:
    """Targets that are not what the client says are refused with the first row that shows it."""
    sentence = refused(*files(targets), **options)
    for part in parts:
        assert part in sentence


def test_bad_label_in_a_later_block(refused: Any, files: Any) -> None:
    """The row of a label is counted over all blocks."""
    targets = np.zeros(600_000)
    targets[599_999] = 7
    assert "label 7 in row 599,999" in refused(*files(targets), classes=5)
