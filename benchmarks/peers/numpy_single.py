"""The training as one would write it by hand: one process, numpy, no service."""

import time

import numpy as np

from benchmarks.figures import Measurement
from benchmarks.peers.numpy_network import gradient, scaled
from benchmarks.peers.task import Task

__all__ = ["train"]


def train(task: Task) -> Measurement:
    """Trains in this process."""
    images, labels, plan = task.images(), task.labels(), task.plan()
    one_hot = np.eye(task.layers[-1], dtype=np.float32)
    parameters = task.first_parameters()
    nabla = np.empty_like(parameters)
    weights, gradients = task.views(parameters), task.views(nabla)
    measurement = Measurement([], [])
    with np.errstate(over="ignore"):  # 1 / (1 + inf) is the right 0
        for epoch in range(plan.epochs):
            cost, begun_s = 0.0, time.perf_counter()
            for step in range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch):
                rows = plan.micro_batch(step, 0)
                cost += gradient(weights, scaled(images, rows), one_hot[labels[rows]], gradients)
                nabla *= np.float32(task.learning_rate / len(rows))
                parameters -= nabla
            measurement.samples_per_second.append(task.rows / (time.perf_counter() - begun_s))
            measurement.costs.append(cost / task.rows)
    return measurement
