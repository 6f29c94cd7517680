"""Nothing overflows, divides by 0 or turns to NaN for |z| up to 1e4."""

import numpy as np
import pytest

from workers.mathematics.activations import ACTIVATIONS
from workers.mathematics.arrays import Scratch
from workers.mathematics.back_propagation import BackPropagation
from workers.mathematics.costs import COSTS, valid_pair
from workers.mathematics.inner_terms import TERMS, InnerTerm
from workers.mathematics.network import Network

PAIRS = [(cost, output) for cost in COSTS for output in ACTIVATIONS if valid_pair(cost, output)]
MAGNITUDES = [0.0, 1e-40, 1e-8, 0.3, 1.0, 5.0, 16.0, 17.5, 40.0, 87.0, 88.5, 104.0, 709.0, 750.0, 1e4]
Z = np.array([*MAGNITUDES, *(-magnitude for magnitude in MAGNITUDES)])
FLOATS = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.fixture(autouse=True)
def _errors_are_raised():
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        yield


def _network_of_extremes(cost, output, terms, dtype):
    """One layer of weights through which the z of the two output nodes are all pairs from Z."""
    pairs = np.stack(np.meshgrid(Z, Z), axis=-1).reshape(-1, 2).astype(dtype)
    network = Network((2, 2), (output,), cost, bias=False, inner_terms=terms)
    return BackPropagation(network, dtype), np.eye(2, dtype=dtype).ravel(), pairs


@FLOATS
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_and_derivatives(name, dtype):
    """Each activation stays finite and in the closure of its range, and ∂φ/∂z is finite."""
    activation = ACTIVATIONS[name]
    z = Z.astype(dtype).reshape(1, -1) if name != "softmax" else Z.astype(dtype).reshape(-1, 1)
    a, delta = np.empty_like(z), np.ones_like(z)
    scratch = Scratch(np.empty_like(z), np.empty_like(z), np.empty_like(z[:1]))
    activation.apply(z, a, scratch)
    assert np.isfinite(a).all()
    assert (a >= dtype(activation.range.low)).all()
    assert (a <= dtype(activation.range.high)).all()
    activation.back(delta, z if activation.keeps_z else a, scratch)
    assert np.isfinite(delta).all()


@FLOATS
@pytest.mark.parametrize(("cost", "output"), PAIRS)
def test_costs(cost, output, dtype):
    """The cost and ∇ of each valid pair are finite for each z, with class labels and with values, 0 among them."""
    back_propagation, parameters, x = _network_of_extremes(cost, output, (), dtype)
    out = np.empty_like(parameters)
    for targets in (np.arange(len(x)) % 2, np.full((len(x), 2), 0.3, dtype), np.ones((len(x), 2), dtype)):
        sums = back_propagation.gradient(parameters, x, targets, out)
        assert np.isfinite(sums.cost_sum)
        assert np.isfinite(out).all()


@FLOATS
@pytest.mark.parametrize(
    ("term", "output"),
    [
        (term, output)
        for term, form in TERMS.items()
        for output in ("sigmoid", "identity", "softmax")
        if ACTIVATIONS[output].range.within(form.domain)
    ],
)
def test_inner_terms(term, output, dtype):
    """The cost and ∇ of each inner term are finite for each z."""
    back_propagation, parameters, x = _network_of_extremes(
        "mean_squared_error", output, (InnerTerm(1, term, 2.0),), dtype
    )
    out = np.empty_like(parameters)
    for rows in (x, x[np.all(x == 1e4, axis=1)], x[np.all(x == -1e4, axis=1)]):
        sums = back_propagation.gradient(parameters, rows, np.zeros(len(rows), np.int64), out)
        assert np.isfinite(sums.cost_sum)
        assert np.isfinite(out).all()


@FLOATS
@pytest.mark.parametrize(("cost", "output"), [pair for pair in PAIRS if pair[0] in {"log_loss", "poisson"}])
def test_saturated_outputs_learn(cost, output, dtype):
    """A target far from an output that was rounded to the end of its range still has a gradient, not 0."""
    back_propagation = BackPropagation(Network((1, 2), (output,), cost, bias=False), dtype)
    parameters, out = np.array([-800.0, 800.0], dtype), np.empty(2, dtype)
    back_propagation.gradient(parameters, np.ones((1, 1), dtype), np.array([[1.0, 0.0]], dtype), out)
    assert out[0] < -0.5


@FLOATS
@pytest.mark.parametrize("cost", ["log_loss", "categorical_cross_entropy"])
def test_cancelled_costs_do_not_saturate(cost, dtype):
    """The cost of a wrong output grows with |z| without end: no log of a number that was rounded to 0."""
    output = "sigmoid" if cost == "log_loss" else "softmax"
    back_propagation = BackPropagation(Network((1, 2), (output,), cost, bias=False), dtype)
    parameters = np.array([-5000.0, 5000.0], dtype)
    sums = back_propagation.evaluate(parameters, np.ones((1, 1), dtype), np.array([[1.0, 0.0]], dtype))
    assert sums.cost_sum == 10000.0
