"""Violations: field paths, their order, and which of several are kept."""

import pytest

from nablad.errors import Violation
from nablad.jobspec import merge
from nablad.jobspec.violations import order, overlap


@pytest.mark.parametrize(
    ("path", "other", "expected"),
    [
        ("model.layers", "model.layers[1]", True),
        ("cost.inner[1].term", "cost.inner", True),
        ("model", "model.layers[1]", True),
        ("model.layer", "model.layers", False),
        ("cost.inner[1]", "cost.inner[10]", False),
        ("cost.inner[1].term", "cost.inner[1].nodes", False),
    ],
)
def test_paths_overlap_where_one_lies_inside_the_other(path, other, expected):
    """Whole steps are compared, so that a misspelt key does not hide the right one."""
    assert overlap(path, other) is expected


def test_paths_are_sorted_as_the_contract_has_them():
    """Fields by their numbers, elements by their index and not their text, unknown keys after their siblings."""
    unsorted = [
        "x y",
        "cost",
        "model.biass",
        "model.bias",
        "model.layers[10]",
        "model.layers[2]",
        "model.layers",
        "name",
    ]
    assert sorted(unsorted, key=order) == unsorted[::-1]


def test_the_first_violation_at_a_field_is_kept():
    """A second check adds what the first did not find, at no field that it had found wrong, inside or around it."""
    first = [Violation("training.epochs", "first"), Violation("model", "first")]
    second = [Violation("training.epochs", "second"), Violation("model.layers[0]", "second"), Violation("name", "new")]
    assert merge(first, second) == [second[2], first[1], first[0]]
