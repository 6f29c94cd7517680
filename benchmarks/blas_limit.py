"""The limit that no trainer passes with this BLAS: the matrix products of the same steps, and nothing else.

No activation, no cost, no update, no rows gathered, no message: every process multiplies matrices of the right shapes
with one BLAS thread, on its share of each mini-batch, without waiting for the others within an epoch.
"""

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from threading import Barrier
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

__all__ = ["samples_per_second"]

Product = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]  # (left, right, out)

_START_SECONDS = 60.0


def samples_per_second(layers: Sequence[int], batch_size: int, steps: int, epochs: int, processes: int) -> list[float]:
    """How fast some processes together get through the products, for each epoch.

    Args:
        layers: Nodes of L(0)…L(E).
        batch_size: Samples of a step over all processes; a multiple of their number.
        steps: Of an epoch.
        epochs: How often.
        processes: At work at the same time.
    """
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager, ProcessPoolExecutor(processes, spawn) as pool:
        start = manager.Barrier(processes)
        share = batch_size // processes
        runs = [pool.submit(_multiply, tuple(layers), share, steps, epochs, start) for _ in range(processes)]
        seconds = [run.result() for run in runs]
    return [steps * batch_size / max(of_epoch) for of_epoch in zip(*seconds, strict=True)]


def _multiply(layers: tuple[int, ...], samples: int, steps: int, epochs: int, start: Barrier) -> list[float]:
    """The seconds of each epoch, which all processes begin together."""
    products, seconds = _products(layers, samples), []
    with threadpool_limits(1):
        for _ in range(epochs):
            start.wait(_START_SECONDS)
            begun_s = time.perf_counter()
            for _ in range(steps):
                for left, right, out in products:
                    np.matmul(left, right, out=out)
            seconds.append(time.perf_counter() - begun_s)
    return seconds


def _products(layers: tuple[int, ...], samples: int) -> list[Product]:
    """Of one step: Z(N+1) = W(N) ⊙ A(N), ∇(N) = δ(N+1) ⊙ A(N)ᵀ and, behind the input, W(N)ᵀ ⊙ δ(N+1)."""
    generator = np.random.default_rng(0)
    a = [generator.random((samples, layers[0]), np.float32).T]
    a += [generator.random((nodes, samples), np.float32) for nodes in layers[1:]]
    products: list[Product] = []
    for number, (sources, targets) in enumerate(pairwise(layers)):
        W, nabla = generator.random((targets, sources), np.float32), np.empty((targets, sources), np.float32)
        products.append((W, a[number], np.empty_like(a[number + 1])))
        products.append((a[number + 1], a[number].T, nabla))
        if number:
            products.append((W.T, a[number + 1], np.empty_like(a[number])))
    return products
