"""Training against an independent implementation of the same network."""

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier, MLPRegressor

from workers.mathematics.back_propagation import BackPropagation
from workers.mathematics.initialisations import initialise
from workers.mathematics.network import Network
from workers.mathematics.optimizers import optimizer

STEPS, SAMPLES, EPSILON = 50, 20, 0.3
INNER = {"logistic": "sigmoid", "tanh": "tanh", "relu": "relu", "identity": "identity"}
SETTINGS = {
    "hidden_layer_sizes": (7, 5), "solver": "sgd", "learning_rate_init": EPSILON, "momentum": 0.0, "alpha": 0.0,
    "nesterovs_momentum": False, "shuffle": False, "random_state": 0,
}  # fmt: skip


def _batches(outputs, *, values):
    generator = np.random.default_rng(11)
    for _ in range(STEPS):
        x = generator.normal(size=(SAMPLES, 6))
        yield (
            x,
            generator.normal(size=(SAMPLES, outputs)) if values else generator.integers(0, max(outputs, 2), SAMPLES),
        )


def _train(network, batches):
    back_propagation = BackPropagation(network, np.float64)
    parameters = initialise(back_propagation.layout, "glorot_uniform", 1.0, 4, np.float64)
    first = parameters.copy()
    rule = optimizer("sgd", EPSILON)
    state, gradient = rule.init(parameters), np.empty_like(parameters)
    for x, targets in batches:
        back_propagation.gradient(parameters, x, targets, gradient)
        state = rule.update(parameters, [(slice(None), gradient)], SAMPLES, state)
    return back_propagation.layout, first, parameters


def _train_peer(peer, layout, first, batches, **first_call):
    """The peer's weights as a parameter vector, after it started from ours."""
    peer.partial_fit(*batches[0], **first_call)  # makes its arrays
    for number, (weights, bias) in enumerate(layout.views(first)):
        peer.coefs_[number][...] = weights.T
        peer.intercepts_[number][...] = bias
    for batch in batches:
        peer.partial_fit(*batch)
    result = np.empty_like(first)
    for number, (weights, bias) in enumerate(layout.views(result)):
        weights[...] = peer.coefs_[number].T
        bias[...] = peer.intercepts_[number]
    return result


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("outputs", [1, 4])
def test_classifier(inner, outputs):
    """50 steps of plain SGD from the same weights over the same batches end in MLPClassifier's weights."""
    output, cost = ("sigmoid", "log_loss") if outputs == 1 else ("softmax", "categorical_cross_entropy")
    batches = list(_batches(outputs, values=False))
    layout, first, ours = _train(Network((6, 7, 5, outputs), (INNER[inner],) * 2 + (output,), cost), batches)
    peer = MLPClassifier(activation=inner, **SETTINGS)
    theirs = _train_peer(peer, layout, first, batches, classes=range(max(outputs, 2)))
    assert np.abs(ours - first).max() > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("inner", ["logistic", "tanh"])
def test_regressor(inner):
    """The same for values and the half squared error, with MLPRegressor."""
    batches = list(_batches(3, values=True))
    network = Network((6, 7, 5, 3), (INNER[inner],) * 2 + ("identity",), "mean_squared_error")
    layout, first, ours = _train(network, batches)
    theirs = _train_peer(MLPRegressor(activation=inner, **SETTINGS), layout, first, batches)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)
