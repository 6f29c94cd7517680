"""torch in one process: all rows in memory, no DataLoader."""

import torch

from benchmarks.figures import Measurement
from benchmarks.peers.task import Task
from benchmarks.peers.torch_network import network, train_epochs

__all__ = ["train"]


def train(task: Task) -> Measurement:
    """Trains in this process."""
    torch.set_num_threads(task.threads)
    seconds, costs = train_epochs(task, network(task))
    return Measurement([task.rows / of_epoch for of_epoch in seconds], [cost / task.rows for cost in costs])
