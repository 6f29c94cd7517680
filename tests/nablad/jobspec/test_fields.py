"""Field paths."""

import pytest

from nablad.jobspec.fields import order, overlap


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
