"""torch's DistributedDataParallel over gloo: every process trains on its part of each mini-batch."""

import json
import os
import tempfile
from pathlib import Path

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from benchmarks.figures import Measurement
from benchmarks.peers.task import Task
from benchmarks.peers.torch_network import network, train_epochs

__all__ = ["train"]


def train(task: Task) -> Measurement:
    """Trains in processes of its own, which find each other through a folder."""
    with tempfile.TemporaryDirectory(prefix="nablad-bench-") as folder:
        task.write(Path(folder, "task.json"))
        torch.multiprocessing.spawn(_train_part, (folder,), task.processes)
        seconds, costs = json.loads(Path(folder, "figures.json").read_text(encoding="utf-8"))
    return Measurement([task.rows / of_epoch for of_epoch in seconds], [cost / task.rows for cost in costs])


def _train_part(rank: int, folder: str) -> None:
    """One process; that of rank 0 writes the seconds and costs of the epochs."""
    task = Task.read(Path(folder, "task.json"))
    torch.set_num_threads(task.threads)
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=task.processes)
    model = DistributedDataParallel(network(task), gradient_as_bucket_view=True)
    seconds, costs = train_epochs(task, model, rank, distributed.barrier)
    totals = torch.tensor(costs, dtype=torch.float64)
    distributed.all_reduce(totals)
    if rank == 0:
        Path(folder, "figures.json").write_text(json.dumps([seconds, totals.tolist()]), encoding="utf-8")
    distributed.destroy_process_group()
    # Not by the interpreter's own end: every twentieth time, a thread that gloo left then aborts the process.
    os._exit(0)
