"""The network by hand computes what it says."""

import numpy as np

from benchmarks.peers.numpy_network import gradient, scaled
from benchmarks.peers.task import Task


def test_the_gradient_is_the_derivative_of_the_cost(task: Task) -> None:
    """Every component agrees with central differences in float64."""
    generator = np.random.default_rng(1)
    parameters = task.first_parameters().astype(np.float64)
    x, y = generator.random((5, 12)), np.eye(4)[generator.integers(0, 4, 5)]
    nabla, unused = np.empty_like(parameters), np.empty_like(parameters)
    gradient(task.views(parameters), x, y, task.views(nabla))
    numeric, step = np.empty_like(parameters), 1e-5
    for number, value in enumerate(parameters.copy()):
        costs = []
        for moved in (value + step, value - step):
            parameters[number] = moved
            costs.append(gradient(task.views(parameters), x, y, task.views(unused)))
        parameters[number] = value
        numeric[number] = (costs[0] - costs[1]) / (2 * step)
    np.testing.assert_allclose(nabla, numeric, rtol=1e-6, atol=1e-8)


def test_the_cost_is_the_log_loss(task: Task) -> None:
    """-[y log a + (1 - y) log(1 - a)], summed over outputs and samples; large z give no infinite cost."""
    x, y = np.zeros((2, 12)), np.eye(4)[[0, 3]]
    parameters = np.zeros(task.first_parameters().size)
    weights, nabla = task.views(parameters), task.views(np.empty_like(parameters))
    assert np.isclose(gradient(weights, x, y, nabla), 2 * 4 * np.log(2))
    weights[-1][1][:] = 1000
    assert gradient(weights, x, y, nabla) == 2 * 3 * 1000


def test_grey_values_become_numbers_from_0_to_1() -> None:
    """255 is 1, and the rows come in the order that is asked for."""
    images = np.array([[0, 255], [51, 102]], np.uint8)
    np.testing.assert_allclose(scaled(images, np.array([1, 0])), [[0.2, 0.4], [0, 1]], rtol=1e-6)
