"""The paper's study network, 2-3-2 behind an input layer, against its sums written out."""

import math

import numpy as np
import pytest

from workers.mathematics.back_propagation import BackPropagation
from workers.mathematics.initialisations import initialise
from workers.mathematics.network import Network

NETWORK = Network((4, 2, 3, 2), ("sigmoid", "sigmoid", "sigmoid"), "log_loss", bias=False)


def _forward(W, x):
    """The activities a[N][j] of one sample, node by node (equations 4, 14)."""
    a = [list(x)]
    for matrix in W:
        z = [sum(w * source for w, source in zip(row, a[-1], strict=True)) for row in matrix]
        a.append([1 / (1 + math.exp(-value)) for value in z])
    return a


def _delta3(a, y, m):
    """outδ · a (1 − a), with outδ of equation 21."""
    out_delta = (a[3][m] - y[m]) / (a[3][m] * (1 - a[3][m]))
    return out_delta * a[3][m] * (1 - a[3][m])


def _path_through_2(W, a, y, j):
    """Σ over the nodes m of L3 (equations 52-59), up to and with the derivative at node j of L2."""
    return sum(_delta3(a, y, m) * W[2][m][j] for m in range(2)) * a[2][j] * (1 - a[2][j])


def _gradient_2(W, samples, j, i):
    """∂Λ/∂(₂w_i^j) (equations 37-42), without the 1/n."""
    return sum(_delta3(a, y, j) * a[2][i] for a, y in samples)


def _gradient_1(W, samples, j, i):
    """∂Λ/∂(₁w_i^j) (equations 52-59), without the 1/n."""
    return sum(_path_through_2(W, a, y, j) * a[1][i] for a, y in samples)


def _gradient_0(W, samples, j, i):
    """∂Λ/∂(₀w_i^j): one layer further in, over all paths to node j of L1."""
    return sum(
        sum(_path_through_2(W, a, y, m) * W[1][m][j] for m in range(3)) * a[1][j] * (1 - a[1][j]) * a[0][i]
        for a, y in samples
    )


@pytest.fixture
def study():
    generator = np.random.default_rng(3)
    back_propagation = BackPropagation(NETWORK, np.float64)
    parameters = initialise(back_propagation.layout, "normal", 1.0, 3, np.float64)
    return back_propagation, parameters, generator.normal(size=(6, 4)), generator.random((6, 2))


def _samples(study):
    back_propagation, parameters, x, y = study
    W = [matrix.tolist() for matrix, _ in back_propagation.layout.views(parameters)]
    return W, [(_forward(W, row), target) for row, target in zip(x.tolist(), y.tolist(), strict=True)]


def test_every_component_of_the_gradient(study):
    """Each ∂Λ/∂w is the paper's double sum over samples and paths."""
    back_propagation, parameters, x, y = study
    out = np.empty_like(parameters)
    back_propagation.gradient(parameters, x, y, out)
    W, samples = _samples(study)
    for layer, explicit in enumerate((_gradient_0, _gradient_1, _gradient_2)):
        nabla, _ = back_propagation.layout.views(out)[layer]
        for (j, i), value in np.ndenumerate(nabla):
            assert value == pytest.approx(explicit(W, samples, j, i), rel=1e-12, abs=1e-14), (layer, j, i)


def test_the_cost(study):
    """The cost is the sum of −[y log a + (1 − y) log(1 − a)] over samples and output nodes."""
    back_propagation, parameters, x, y = study
    _, samples = _samples(study)
    explicit = -sum(
        target * math.log(value) + (1 - target) * math.log(1 - value)
        for a, targets in samples
        for value, target in zip(a[3], targets, strict=True)
    )
    assert back_propagation.evaluate(parameters, x, y).cost_sum == pytest.approx(explicit, rel=1e-13)


def test_the_outputs(study):
    """The outputs are the activities of L3, one column per sample."""
    back_propagation, parameters, x, _ = study
    _, samples = _samples(study)
    np.testing.assert_allclose(back_propagation.outputs(parameters, x), np.array([a[3] for a, _ in samples]).T, 1e-14)
