import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.mathematics.parameters import ParameterLayout

LAYERS = st.lists(st.integers(1, 6), min_size=2, max_size=5)


@settings(deadline=None)
@given(layers=LAYERS, bias=st.booleans())
def test_views_cover_the_vector(layers, bias):
    """W(0), b(0), W(1)… row by row, one after the other, are the vector: no gap, no overlap."""
    layout = ParameterLayout(layers, bias)
    vector = np.arange(layout.size, dtype=np.float64)
    parts = [part.ravel() for views in layout.views(vector) for part in views if part is not None]
    assert np.array_equal(np.concatenate(parts), vector)
    assert [weights[0, 0] for weights, _ in layout.views(vector)] == layout.starts


@settings(deadline=None)
@given(layers=LAYERS, bias=st.booleans())
def test_named_arrays_are_the_views(layers, bias):
    """Arrays of the layout's names and shapes come to their places."""
    layout = ParameterLayout(layers, bias)
    named = {name: np.zeros(shape) for name, shape in layout.shapes().items()}
    parts = [part for views in layout.from_named(named) for part in views if part is not None]
    assert [part is array for part, array in zip(parts, named.values(), strict=True)] == [True] * len(named)
    shapes = [part.shape for views in layout.views(np.zeros(layout.size)) for part in views if part is not None]
    assert list(layout.shapes().values()) == shapes


@settings(deadline=None)
@given(layers=LAYERS, bias=st.booleans())
def test_views_are_no_copies(layers, bias):
    """What is written to the views stands in the vector."""
    layout = ParameterLayout(layers, bias)
    vector = np.zeros(layout.size, np.float32)
    for views in layout.views(vector):
        for view in views:
            if view is not None:
                view[...] = 1
    assert (vector == 1).all()


def test_shapes_and_names():
    """W(N) has a row for each node of L(N+1) and a column for each of L(N); b(N) goes with it."""
    layout = ParameterLayout((4, 3, 2), bias=True)
    shapes = layout.shapes()
    assert list(shapes) == ["W0", "b0", "W1", "b1"]
    assert shapes == {"W0": (3, 4), "b0": (3,), "W1": (2, 3), "b1": (2,)}
    assert layout.size == 23


def test_without_bias():
    """Without bias there are only the matrices."""
    layout = ParameterLayout((4, 3, 2), bias=False)
    assert list(layout.shapes()) == ["W0", "W1"]
    assert [bias for _, bias in layout.views(np.zeros(18))] == [None, None]


@pytest.mark.parametrize("vector", [np.zeros(22), np.zeros((1, 23)), np.zeros(46)[::2]])
def test_other_vectors_are_refused(vector):
    """A vector of another size, or with gaps, is rejected."""
    with pytest.raises(ValueError, match=r"layers \[4, 3, 2\] must be contiguous and have the shape \(23,\)"):
        ParameterLayout((4, 3, 2), bias=True).views(vector)
