"""The limit that no trainer passes with this BLAS: the matrix products of the same steps, and nothing else.

No activation, no cost, no update, no rows gathered, no message: every process multiplies matrices of the right shapes
on its share of each mini-batch, without waiting for the others within an epoch.
"""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from threading import Barrier

import numpy as np

from benchmarks.figures import Measurement
from benchmarks.peers.task import Floats, Task

__all__ = ["products", "train"]

Product = tuple[Floats, Floats, Floats]  # (left, right, out)

_START_SECONDS = 60.0


def train(task: Task) -> Measurement:
    """Multiplies in processes of its own."""
    spawn, plan = multiprocessing.get_context("spawn"), task.plan()
    samples = task.spec.training.batch_size // task.processes
    with spawn.Manager() as manager, ProcessPoolExecutor(task.processes, spawn) as pool:
        start = manager.Barrier(task.processes)
        work = (task.layers, samples, plan.steps_per_epoch, plan.epochs, start)
        runs = [pool.submit(_multiply, *work) for _ in range(task.processes)]
        seconds = [run.result() for run in runs]
    multiplied = plan.steps_per_epoch * samples * task.processes
    return Measurement([multiplied / max(of_epoch) for of_epoch in zip(*seconds, strict=True)])


def products(layers: tuple[int, ...], samples: int) -> list[Product]:
    """Products of one step: Z(N+1) = W(N) ⊙ A(N), ∇(N) = δ(N+1) ⊙ A(N)ᵀ and, behind the input, W(N)ᵀ ⊙ δ(N+1)."""
    generator = np.random.default_rng(0)
    a = [generator.random((samples, layers[0]), np.float32).T]
    a += [generator.random((nodes, samples), np.float32) for nodes in layers[1:]]
    made: list[Product] = []
    for number, (sources, targets) in enumerate(pairwise(layers)):
        W, nabla = generator.random((targets, sources), np.float32), np.empty((targets, sources), np.float32)
        made.append((W, a[number], np.empty_like(a[number + 1])))
        made.append((a[number + 1], a[number].T, nabla))
        if number:
            made.append((W.T, a[number + 1], np.empty_like(a[number])))
    return made


def _multiply(layers: tuple[int, ...], samples: int, steps: int, epochs: int, start: Barrier) -> list[float]:
    """The seconds of each epoch, which all processes begin together."""
    made, seconds = products(layers, samples), []
    for _ in range(epochs):
        start.wait(_START_SECONDS)
        begun_s = time.perf_counter()
        for _ in range(steps):
            for left, right, out in made:
                np.matmul(left, right, out=out)
        seconds.append(time.perf_counter() - begun_s)
    return seconds
