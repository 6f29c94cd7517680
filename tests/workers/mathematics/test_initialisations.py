import hashlib
import math

import numpy as np
import pytest

from workers.mathematics.initialisations import INITIALISATIONS, initialise
from workers.mathematics.parameters import ParameterLayout

LAYOUT = ParameterLayout((300, 200, 100), bias=True)
DEVIATIONS = {  # of W(0): from L(0), n = 300 nodes, to L(1), m = 200 nodes
    "glorot_uniform": math.sqrt(6 / 500) / math.sqrt(3),
    "glorot_normal": math.sqrt(2 / 500),
    "he_uniform": math.sqrt(6 / 300) / math.sqrt(3),
    "he_normal": math.sqrt(2 / 300),
    "uniform": 1 / math.sqrt(3),
    "normal": 1.0,
}
GOLDEN = {  # first weight, and the start of the SHA-256 of all parameters
    "glorot_uniform": ("-0x1.a64494250f659p-3", "8d5d02660651c7cc"),
    "glorot_normal": ("-0x1.06b8317ef0896p-2", "7b95f3a90f485793"),
    "he_uniform": ("-0x1.1b44129cf8d32p-2", "8541d6049b19d512"),
    "he_normal": ("-0x1.6079a6f240288p-2", "375fec659368c296"),
    "uniform": ("-0x1.0295d08e65e7ap-2", "72aec05e1f540c15"),
    "normal": ("-0x1.16a7f7308e3b7p-1", "dab0d9bfe5f653ea"),
}


@pytest.mark.parametrize("name", INITIALISATIONS)
def test_golden_values(name):
    """The weights of a seed are these, to the last bit, on every machine."""
    vector = initialise(ParameterLayout((5, 4, 3), bias=True), name, 0.5, 7, np.float64)
    first, digest = GOLDEN[name]
    assert vector[0] == float.fromhex(first)
    assert hashlib.sha256(vector.astype("<f8").tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("name", INITIALISATIONS)
def test_spread(name):
    """The weights have mean 0 and the spread of their name, times the scale; uniform ones keep within their width."""
    (weights, _), _ = LAYOUT.views(initialise(LAYOUT, name, 0.5, 1, np.float64))
    deviation = 0.5 * DEVIATIONS[name]
    assert weights.std() == pytest.approx(deviation, rel=0.02)
    assert abs(weights.mean()) < 4 * deviation / math.sqrt(weights.size)
    if name.endswith("uniform"):
        assert np.abs(weights).max() <= math.sqrt(3) * deviation


@pytest.mark.parametrize("name", INITIALISATIONS)
def test_float32_is_float64_rounded(name):
    """float32 weights are the float64 ones, rounded once."""
    exact = initialise(LAYOUT, name, 1.0, 3, np.float64)
    assert np.array_equal(initialise(LAYOUT, name, 1.0, 3, np.float32), exact.astype(np.float32))


def test_biases_are_0():
    """All biases start at 0, and no weight does."""
    for weights, bias in LAYOUT.views(initialise(LAYOUT, "normal", 1.0, 3, np.float64)):
        assert not bias.any()
        assert weights.all()


def test_layers_and_seeds_differ():
    """Each layer of each seed has draws of its own; large seeds are not cut."""
    square = ParameterLayout((8, 8, 8), bias=False)
    draws = {
        weights.tobytes()
        for seed in (0, 1, 2**32, 2**32 + 1, 2**64 - 1)
        for weights, _ in square.views(initialise(square, "normal", 1.0, seed, np.float64))
    }
    assert len(draws) == 10


def test_a_layer_depends_on_no_other():
    """W(0) of a seed is the same whatever follows it, with or without bias."""
    short, deep = ParameterLayout((8, 4), bias=True), ParameterLayout((8, 4, 9, 3), bias=False)
    weights = [layout.views(initialise(layout, "he_normal", 1.0, 5, np.float64))[0][0] for layout in (short, deep)]
    assert np.array_equal(*weights)


def test_unknown_name():
    """An unknown initialisation is rejected with the names that are known."""
    with pytest.raises(ValueError, match="'xavier' is unknown; known are glorot_uniform"):
        initialise(LAYOUT, "xavier", 1.0, 0, np.float32)
