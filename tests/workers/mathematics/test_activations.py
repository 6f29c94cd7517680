"""Each activation against its formula, written plainly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.mathematics.activations import ACTIVATIONS
from workers.mathematics.arrays import Scratch

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
FORMULAS = {
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "relu": lambda z: np.where(z > 0, z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "elu": lambda z: np.where(z > 0, z, np.expm1(z)),
    "selu": lambda z: SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * np.expm1(z)),
    "gelu": lambda z: z / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))),
    "softplus": lambda z: np.log(1 + np.exp(z)),
    "softsign": lambda z: z / (1 + np.abs(z)),
    "identity": lambda z: z,
    "softmax": lambda z: np.exp(z) / np.exp(z).sum(axis=0),
}


def _apply(name, z, *, in_place):
    scratch = Scratch(np.empty_like(z), np.empty_like(z), np.empty_like(z[:1]))
    source = z.copy()
    a = source if in_place else np.empty_like(z)
    ACTIVATIONS[name].apply(source, a, scratch)
    return a, scratch


def test_all_are_here():
    """Every activation of the contract is here, and every one here has its formula in this test."""
    assert set(FORMULAS) == set(ACTIVATIONS)


@settings(deadline=None)
@given(z=st.lists(st.floats(-30, 30), min_size=6, max_size=6), in_place=st.booleans())
@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name, z, in_place):
    """φ(z) is what its formula says, in place or not."""
    array = np.array(z).reshape(3, 2)
    a, _ = _apply(name, array, in_place=in_place and not ACTIVATIONS[name].keeps_z)
    np.testing.assert_allclose(a, FORMULAS[name](array), rtol=1e-12, atol=1e-14)


@given(z=st.lists(st.floats(-1e4, 1e4, width=32), min_size=20, max_size=20))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_to_the_last_bit(z, dtype):
    """Sigmoid has the very bits of 1 / (1 + exp(−z)), also where exp(−z) overflows, and no warning escapes."""
    array = np.array(z, dtype).reshape(4, 5)
    with np.errstate(over="ignore"):
        expected = FORMULAS["sigmoid"](array)
    with np.errstate(all="raise", under="ignore"):
        a, _ = _apply("sigmoid", array, in_place=True)
    assert a.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("name", "slope"), [("relu", 0.0), ("leaky_relu", 0.01), ("elu", 1.0), ("selu", SELU_SCALE * SELU_ALPHA)]
)
def test_derivative_at_the_kink(name, slope):
    """At z = 0 the derivative is the one from the left."""
    z, delta = np.zeros((1, 1)), np.ones((1, 1))
    a, scratch = _apply(name, z, in_place=False)
    ACTIVATIONS[name].back(delta, a, scratch)
    assert delta[0, 0] == slope


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_small_activities_keep_their_digits(name):
    """Activities near 0 are exact to the last digits in float32: φ(−20) is not 1 minus something."""
    z = np.array([[-20.0], [0.0]], np.float32)
    a, _ = _apply(name, z, in_place=True)
    assert a[0, 0] == pytest.approx(1 / (1 + np.exp(20.0)), rel=1e-6)


def test_range_of_gelu():
    """The lower end given for gelu lies below its minimum, by less than 1e-6."""
    low = FORMULAS["gelu"](np.linspace(-2, 0, 100001)).min()
    assert 0 <= low - ACTIVATIONS["gelu"].range.low < 1e-6
