"""The network, its data and the training loop as users of torch write them; for one process and for several."""

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from benchmarks.peers.task import Task

__all__ = ["network", "train_epochs"]


def network(task: Task) -> Any:
    """Linear layers and sigmoids with the first weights of the task; the last sigmoid is part of the cost."""
    layers: list[Any] = []
    for sources, targets in pairwise(task.layers):
        layers += [nn.Linear(sources, targets), nn.Sigmoid()]
    made = nn.Sequential(*layers[:-1])
    vector = torch.from_numpy(task.first_parameters())
    nn.utils.vector_to_parameters(vector, made.parameters())
    return made


def train_epochs(
    task: Task, model: Any, rank: int = 0, together: Callable[[], object] = lambda: None
) -> tuple[list[float], list[float]]:
    """Trains on one part of every mini-batch.

    Among several processes DDP takes the mean of their gradients. So the cost of a part is divided by the samples of
    the whole mini-batch and taken as often as there are processes: the mean is then the gradient of the whole.

    Args:
        task: What to train.
        model: The network, or the network in DDP.
        rank: Number of the part.
        together: Waits for the other processes.

    Returns:
        Seconds and summed cost of each epoch.
    """
    plan, batch_size = task.plan(task.processes), task.spec.training.batch_size
    images = torch.from_numpy(task.images()).to(torch.float32).div_(255)
    targets = torch.eye(task.layers[-1])[torch.from_numpy(task.labels()).to(torch.int64)]
    cost_of = nn.BCEWithLogitsLoss(reduction="sum")
    optimizer = torch.optim.SGD(model.parameters(), lr=task.learning_rate)
    seconds: list[float] = []
    costs: list[float] = []
    for epoch in range(plan.epochs):
        together()
        cost_sum, begun_s = torch.zeros((), dtype=torch.float64), time.perf_counter()
        for number in range(plan.steps_per_epoch):
            rows = torch.tensor(plan.micro_batch(epoch * plan.steps_per_epoch + number, rank))
            samples = min(batch_size, plan.rows - number * batch_size)
            cost = cost_of(model(images.index_select(0, rows)), targets.index_select(0, rows))
            optimizer.zero_grad()
            (cost * (task.processes / samples)).backward()
            optimizer.step()
            cost_sum += cost.detach()
        together()
        seconds.append(time.perf_counter() - begun_s)
        costs.append(float(cost_sum))
    return seconds, costs
