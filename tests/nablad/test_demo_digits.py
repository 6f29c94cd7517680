"""The handwritten digits that come with nablad."""

import re

import numpy as np
import pytest
from sklearn.datasets import load_digits

from nablad import demo
from nablad.jobspec import load


def _arrays(path):
    with np.load(path, allow_pickle=False) as file:
        assert sorted(file) == ["x", "y"]
        return file["x"], file["y"]


def test_both_files_together_are_scikit_learn_s_digits_each_once():
    """No digit is missing, changed, doubled or in both files."""
    parts = [_arrays(path) for path in demo.FILES.values()]
    ours = np.concatenate([np.column_stack(part) for part in parts])
    theirs = np.column_stack([load_digits().data, load_digits().target])
    assert len(ours) == 1797
    assert np.array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


def test_the_files_are_of_the_form_that_the_page_says():
    """Pixels and labels are bytes; 1437 rows are for training and 360 held out; together they stay small."""
    parts = [_arrays(path) for path in demo.FILES.values()]
    assert [part[0].shape for part in parts] == [(1437, 64), (360, 64)]
    assert all(array.dtype == np.uint8 for part in parts for array in part)
    assert sum(path.stat().st_size for path in demo.FILES.values()) < 150_000


def test_the_recipe_makes_the_same_rows(tmp_path, monkeypatch):
    """Whoever runs the page's recipe gets these files' numbers."""
    page = (demo.FOLDER / "README.md").read_text()
    (recipe,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(recipe, {})  # noqa: S102  # our own page
    for path in demo.FILES.values():
        assert all(map(np.array_equal, _arrays(path), _arrays(tmp_path / path.name)))
    assert (tmp_path / demo.ONE_FILE.name).read_text() == demo.ONE_FILE.read_text()


def test_the_one_digit_is_a_held_out_one_with_its_label():
    """What the demo predicts was not trained with, and its truth is the data set's."""
    pixels, labels = _arrays(demo.FILES["digits-validation"])
    assert np.array_equal(np.loadtxt(demo.ONE_FILE, delimiter=",", dtype=np.uint8), pixels[0])
    assert labels[0] == demo.ONE_LABEL


def test_the_job_breaks_no_rule():
    """The demo's job file is one that a user could submit."""
    spec = load(demo.JOB_FILE)
    assert {spec.data.train, spec.data.validation} == set(demo.FILES)


@pytest.mark.parametrize(("value", "shade"), [(0, " "), (16, "█"), (8, "▒")])
def test_a_digit_is_drawn_darker_where_its_pixels_are(value, shade):
    """Eight lines of eight pixels, two characters each."""
    lines = demo.draw(",".join([str(value)] * 64))
    assert lines == [shade * 16] * 8
