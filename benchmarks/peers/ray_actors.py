"""A parameter server of Ray actors, as Ray's documentation shows it, with the network in numpy.

Weights and gradients go through Ray's object store, each as one vector. As in the documentation the driver chains the
references of a whole epoch, and waits only at its end.
"""

import os
import tempfile
import time
from typing import Any

# Before ray is imported, which reads it once.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import ray

from benchmarks.figures import Measurement
from benchmarks.peers.numpy_network import gradient, scaled
from benchmarks.peers.task import Floats, Task

__all__ = ["train"]


class ParameterServer:
    """Holds the weights."""

    def __init__(self, task: Task) -> None:
        self._task, self._plan, self._step = task, task.plan(task.processes), 0
        self._parameters = task.first_parameters()

    def update(self, *gradients: Floats) -> Floats:
        """One step with the sums that the workers found."""
        batch_size = self._task.spec.training.batch_size
        samples = min(batch_size, self._plan.rows - self._step % self._plan.steps_per_epoch * batch_size)
        self._parameters -= np.float32(self._task.learning_rate / samples) * np.sum(gradients, axis=0)
        self._step += 1
        return self._parameters


class Worker:
    """Computes on one part of every mini-batch."""

    def __init__(self, task: Task, rank: int) -> None:
        np.seterr(over="ignore")  # 1 / (1 + inf) is the right 0
        self._task, self._plan, self._rank, self._step = task, task.plan(task.processes), rank, 0
        self._images, self._labels = task.images(), task.labels()
        self._one_hot = np.eye(task.layers[-1], dtype=np.float32)
        self._cost = 0.0

    def gradient(self, parameters: Floats) -> Floats:
        """The sum over this part of the next mini-batch."""
        rows = self._plan.micro_batch(self._step, self._rank)
        x, y = scaled(self._images, rows), self._one_hot[self._labels[rows]]
        nabla = np.empty_like(parameters)
        self._cost += gradient(self._task.views(parameters), x, y, self._task.views(nabla))
        self._step += 1
        return nabla

    def take_cost(self) -> float:
        """The summed cost since the last call."""
        cost, self._cost = self._cost, 0.0
        return cost


def train(task: Task) -> Measurement:
    """Trains in a Ray of its own."""
    # The paths of Ray's sockets must be short.
    with tempfile.TemporaryDirectory(prefix="nb-", ignore_cleanup_errors=True) as folder:
        ray.init(
            address="local",
            num_cpus=task.processes + 1,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=folder,
        )
        try:
            return _train(task)
        finally:
            ray.shutdown()


def _train(task: Task) -> Measurement:
    actor: Any = ray.remote
    server = actor(ParameterServer).remote(task)
    workers = [actor(Worker).remote(task, rank) for rank in range(task.processes)]
    plan, measurement = task.plan(), Measurement([], [])
    parameters = ray.put(task.first_parameters())
    ray.get([worker.take_cost.remote() for worker in workers])  # all are there
    for _ in range(plan.epochs):
        begun_s = time.perf_counter()
        for _ in range(plan.steps_per_epoch):
            parameters = server.update.remote(*(worker.gradient.remote(parameters) for worker in workers))
        ray.get(parameters)
        measurement.samples_per_second.append(task.rows / (time.perf_counter() - begun_s))
        costs: list[float] = ray.get([worker.take_cost.remote() for worker in workers])
        measurement.costs.append(sum(costs) / task.rows)
    return measurement
