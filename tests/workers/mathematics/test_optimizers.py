import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from workers.mathematics.optimizers import optimizer

NAMES = ["sgd", "momentum", "nesterov", "adam"]
SIZE = 400


def _run(rule, parameters, gradients):
    state = rule.init(parameters)
    for gradient in gradients:
        state = rule.update(parameters, [(slice(None), gradient.copy())], 1, state)
    return state


@pytest.fixture
def data():
    generator = np.random.default_rng(8)
    return generator.normal(size=SIZE), [generator.normal(size=SIZE) for _ in range(6)]


def test_sgd(data):
    """W ← W − ε g."""
    parameters, gradients = data
    expected = parameters - 0.1 * np.sum(gradients, axis=0)
    _run(optimizer("sgd", 0.1), parameters, gradients)
    np.testing.assert_allclose(parameters, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("nesterov", [True, False])
def test_momentum(nesterov, data):
    """Velocity v ← μ v − ε g; W ← W + v, or with nesterov W ← W + μ v − ε g."""
    parameters, gradients = data
    expected, velocity = parameters.copy(), np.zeros(SIZE)
    for gradient in gradients:
        velocity = 0.8 * velocity - 0.1 * gradient
        expected += 0.8 * velocity - 0.1 * gradient if nesterov else velocity
    state = _run(optimizer("nesterov" if nesterov else "momentum", 0.1, momentum=0.8), parameters, gradients)
    np.testing.assert_allclose(parameters, expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(state.moments[0], velocity, rtol=0, atol=1e-14)


def test_adam(data):
    """Algorithm 1 of the paper by Kingma and Ba, with an eps that is not small."""
    parameters, gradients = data
    expected, m, v = parameters.copy(), np.zeros(SIZE), np.zeros(SIZE)
    for t, gradient in enumerate(gradients, start=1):
        m = 0.7 * m + 0.3 * gradient
        v = 0.95 * v + 0.05 * gradient**2
        expected -= 0.01 * (m / (1 - 0.7**t)) / (np.sqrt(v / (1 - 0.95**t)) + 0.1)
    _run(optimizer("adam", 0.01, beta1=0.7, beta2=0.95, eps=0.1), parameters, gradients)
    np.testing.assert_allclose(parameters, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["momentum", "nesterov", "adam"])
def test_scikit_learn(name, data):
    """The updates are scikit-learn's; adam's where eps, which it adds elsewhere, does not matter."""
    parameters, gradients = data
    theirs = [parameters.copy()]
    if name == "adam":
        peer = AdamOptimizer(theirs, 0.01, epsilon=1e-20)
    else:
        peer = SGDOptimizer(theirs, 0.01, momentum=0.9, nesterov=name == "nesterov")
    for gradient in gradients:
        peer.update_params(theirs, [gradient])
    _run(optimizer(name, 0.01, eps=1e-20), parameters, gradients)
    np.testing.assert_allclose(parameters, theirs[0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_an_update_has_the_learning_rate_of_its_step(name, data):
    """An update at a rate that changes is, to the last bit, one at the constant rate of that step."""
    parameters, gradients = data
    changing = replace(optimizer(name, 0.1), learning_rate=lambda step: 0.1 / step)
    state = changing.init(parameters)
    for step, gradient in enumerate(gradients, start=1):
        expected, moments = parameters.copy(), tuple(moment.copy() for moment in state.moments)
        constant = optimizer(name, 0.1 / step)
        assert constant.learning_rate(step) == changing.learning_rate(step)
        constant.update(expected, [(slice(None), gradient.copy())], 1, state._replace(moments=moments))
        state = changing.update(parameters, [(slice(None), gradient.copy())], 1, state)
        assert parameters.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_state_is_all_there_is(name, data):
    """An optimizer made anew goes on from a saved state, to the last bit."""
    parameters, gradients = data
    resumed, rule = parameters.copy(), optimizer(name, 0.1)
    _run(rule, parameters, gradients)
    saved = _run(rule, resumed, gradients[:3])
    again = optimizer(name, 0.1)
    state = again.init(resumed)._replace(
        updates=saved.updates, moments=tuple(moment.copy() for moment in saved.moments)
    )
    for gradient in gradients[3:]:
        state = again.update(resumed, [(slice(None), gradient.copy())], 1, state)
    assert state.updates == len(gradients)
    assert resumed.tobytes() == parameters.tobytes()


@given(cuts=st.lists(st.integers(0, SIZE), max_size=8), order=st.randoms(use_true_random=False))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_blocks(name, dtype, cuts, order):
    """However the vector is cut into blocks, and in whatever order they come, the bits are those of one block."""
    generator = np.random.default_rng(8)
    parameters, gradients = generator.normal(size=SIZE).astype(dtype), generator.normal(size=(3, SIZE)).astype(dtype)
    in_blocks, rule = parameters.copy(), optimizer(name, 0.1)
    whole, state = _run(rule, parameters, gradients), rule.init(in_blocks)
    places = [slice(start, stop) for start, stop in itertools.pairwise([0, *sorted(cuts), SIZE])]
    for gradient in gradients:
        order.shuffle(places)
        state = rule.update(in_blocks, ((place, gradient[place].copy()) for place in places), 1, state)
    assert in_blocks.tobytes() == parameters.tobytes()
    assert state.updates == whole.updates
    for moment, expected in zip(state.moments, whole.moments, strict=True):
        assert moment.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_float32_stays_float32(name, data):
    """float32 vectors are updated in float32, near to what float64 gives."""
    parameters, gradients = data
    narrow = parameters.astype(np.float32)
    state = _run(optimizer(name, 0.1), narrow, [gradient.astype(np.float32) for gradient in gradients])
    _run(optimizer(name, 0.1), parameters, gradients)
    assert {moment.dtype for moment in state.moments} <= {np.dtype(np.float32)}
    np.testing.assert_allclose(narrow, parameters, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("eps", [1e-8, 1e-300])
def test_adam_leaves_dead_weights_alone(eps, dtype):
    """A weight whose gradient was always 0 stays as it is, even with an eps that float32 rounds to 0."""
    parameters = np.ones(3, dtype)
    with np.errstate(all="raise", under="ignore"):
        _run(optimizer("adam", 0.1, eps=eps), parameters, [np.zeros(3, dtype)] * 2)
    assert (parameters == 1).all()


def test_first_step_of_adam():
    """The first step of adam is ε long in every direction, whatever the size of the gradient."""
    parameters = np.zeros(2)
    _run(optimizer("adam", 0.1), parameters, [np.array([1000.0, -1e-3])])
    assert all(math.isclose(abs(value), 0.1, rel_tol=1e-4) for value in parameters)


def test_unknown_name():
    """An unknown optimizer is rejected with the names that are known."""
    with pytest.raises(ValueError, match="'adm' is unknown; known are sgd, momentum, nesterov, adam"):
        optimizer("adm", 0.1)
