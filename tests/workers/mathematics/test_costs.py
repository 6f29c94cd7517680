import numpy as np
import pytest

from workers.mathematics.activations import ACTIVATIONS
from workers.mathematics.arrays import Interval, Scratch
from workers.mathematics.costs import CANCELLED_FORMS, COSTS, cost_function, valid_pair

FORMULAS = {
    "log_loss": lambda a, y: -(y * np.log(a) + (1 - y) * np.log(1 - a)),
    "categorical_cross_entropy": lambda a, y: -y * np.log(a),
    "mean_squared_error": lambda a, y: (a - y) ** 2 / 2,
    "mean_absolute_error": lambda a, y: np.abs(a - y),
    "huber": lambda a, y: np.where(
        np.abs(a - y) <= 0.25, (a - y) ** 2 / 2, 0.25 * (np.abs(a - y) - 0.125)
    ),
    "poisson": lambda a, y: a - y * np.log(a),
}  # fmt: skip
ALL = set(ACTIVATIONS)


@pytest.fixture
def data():
    generator = np.random.default_rng(2)
    z, y = generator.normal(size=(3, 8)), generator.random((3, 8))
    return z, y, np.empty_like(z), Scratch(np.empty_like(z), np.empty_like(z), np.empty_like(z[:1]))


@pytest.mark.parametrize("name", COSTS)
def test_formula(name, data):
    """λ(a, y) is what its formula says."""
    z, y, out, scratch = data
    a = 1 / (1 + np.exp(-z))
    cost_function(name, huber_delta=0.25).value(a, y, out, scratch)
    np.testing.assert_allclose(out, FORMULAS[name](a, y), rtol=1e-12)


@pytest.mark.parametrize(("cost", "output"), CANCELLED_FORMS)
def test_cancelled_forms_are_exact(cost, output, data):
    """A cancelled form gives the λ and the δ(E) of the generic route, also where the y of a sample do not sum to 1."""
    z, y, out, scratch = data
    a, generic = np.empty_like(z), np.empty_like(z)
    ACTIVATIONS[output].apply(z, a, scratch)
    COSTS[cost].value(a, y, generic, scratch)
    CANCELLED_FORMS[cost, output].value(z, y, out, scratch)
    np.testing.assert_allclose(out, generic, rtol=1e-12)
    COSTS[cost].derivative(a, y, generic, scratch)
    ACTIVATIONS[output].back(generic, a, scratch)
    CANCELLED_FORMS[cost, output].delta(a, y, out, scratch)
    np.testing.assert_allclose(out, generic, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize(
    ("cost", "outputs"),
    [
        ("log_loss", {"sigmoid", "softmax"}),
        ("categorical_cross_entropy", {"sigmoid", "softmax"}),
        ("poisson", {"sigmoid", "softmax", "softplus"}),
        ("mean_squared_error", ALL),
        ("mean_absolute_error", ALL),
        ("huber", ALL),
    ],
)
def test_valid_pairs(cost, outputs):
    """A pair is valid exactly when the cost is finite on all of the output activation's range."""
    assert {name for name in ACTIVATIONS if valid_pair(cost, name)} == outputs


@pytest.mark.parametrize(
    ("inner", "outer", "within"),
    [
        (Interval(0, 1), Interval(0, 1), True),
        (Interval(0, 1, low_included=True), Interval(0, 1), False),
        (Interval(0, 1), Interval(0, 1, low_included=True, high_included=True), True),
        (Interval(0, 1, high_included=True), Interval(0, 1), False),
        (Interval(0, 1), Interval(), True),
        (Interval(), Interval(0, 1), False),
        (Interval(-1, 1), Interval(0), False),
    ],
)
def test_intervals(inner, outer, within):
    """An end that belongs to the inner interval must belong to the outer one."""
    assert inner.within(outer) is within
