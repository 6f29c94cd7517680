"""The limits move and multiply what the steps do."""

from itertools import pairwise

import numpy as np

from benchmarks.peers import blas_limit, loopback_limit
from benchmarks.peers.task import Task


def test_the_products_are_those_of_a_step() -> None:
    """Three for each layer of weights, less the one that would reach behind the input, each with its shape."""
    layers, samples = (12, 9, 7, 4), 5
    products = blas_limit.products(layers, samples)
    multiplications = sum(left.shape[0] * left.shape[1] * right.shape[1] for left, right, _ in products)
    weights = [sources * targets for sources, targets in pairwise(layers)]
    assert multiplications == samples * (3 * sum(weights) - weights[0])
    for left, right, out in products:
        assert out.shape == np.matmul(left, right, out=out).shape


def test_sockets_move_the_messages_of_every_epoch(task: Task) -> None:
    """There is one figure for each epoch, and no cost: nothing is trained."""
    measurement = loopback_limit.train(Task(task.spec, task.folder, task.rows, processes=2))
    assert len(measurement.samples_per_second) == 3
    assert not measurement.costs
