"""Data-parallel training over an all-reduce in shared memory, of the kind that DeepSpeed has for CPUs.

Every process, called a rank, computes on its part of each mini-batch with the network in numpy. Barrier, addition and
update are C (`shared_all_reduce.c`), compiled when they are needed. Which of two ways is faster depends on the size:

- Small vectors: every rank adds all gradients and updates weights of its own. One barrier is enough, because the
  gradients of two steps have places of their own: a rank overwrites a place two steps later, when all have read it.
- Large vectors: every rank adds and updates a slice of weights that all share, and a second barrier follows. Less
  memory is moved.
"""

import ctypes
import multiprocessing
import os
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.errors import BenchmarkError
from benchmarks.figures import Measurement
from benchmarks.peers.numpy_network import gradient, scaled
from benchmarks.peers.task import Floats, Task

__all__ = ["train"]

_SOURCE = Path(__file__).with_suffix(".c")
_COMPILERS = ("cc", "gcc", "clang")
# The barrier and each vector begin on a page of their own.
_PAGE = 4096
# Vectors with more bytes are updated in slices.
_MOST_WHOLE_BYTES = 1_000_000


def train(task: Task) -> Measurement:
    """Trains in processes of its own.

    Raises:
        BenchmarkError: There is no C compiler, or a process did not come to the barrier.
    """
    sliced = task.first_parameters().nbytes > _MOST_WHOLE_BYTES
    with tempfile.TemporaryDirectory(prefix="nablad-bench-") as folder:
        library = _compile(Path(folder))
        descriptor = os.memfd_create("nablad-bench-vectors")  # nothing of it stays, whoever is killed
        try:
            os.truncate(descriptor, _PAGE + (1 + _places(sliced) * task.processes) * _stride(task))
            memory = f"/proc/{os.getpid()}/fd/{descriptor}"
            with ProcessPoolExecutor(task.processes, multiprocessing.get_context("spawn")) as pool:
                work = (task, memory, library, sliced)
                ranks = [pool.submit(_train_part, rank, *work) for rank in range(task.processes)]
                parts = [rank.result() for rank in ranks]
        finally:
            os.close(descriptor)
    seconds = np.max([part[0] for part in parts], axis=0)
    costs = np.sum([part[1] for part in parts], axis=0)
    return Measurement((task.rows / seconds).tolist(), (costs / task.rows).tolist())


def _compile(folder: Path) -> Path:
    """Returns the library, for this machine's CPU."""
    compiler = os.environ.get("CC") or next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise BenchmarkError(
            f"The shared-memory all-reduce needs a C compiler: none of {', '.join(_COMPILERS)} is here."
        )
    library = folder / "shared_all_reduce.so"
    command = [
        *compiler.split(),
        "-O3",
        "-march=native",
        "-std=gnu11",
        "-shared",
        "-fPIC",
        "-o",
        str(library),
        str(_SOURCE),
    ]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise BenchmarkError(f"The shared-memory all-reduce needs a C compiler: {compiler} is not here.") from error
    except subprocess.CalledProcessError as error:
        raise BenchmarkError(f"{compiler} did not compile {_SOURCE.name}: {error.stderr}") from error
    return library


def _places(sliced: bool) -> int:
    """Returns the number of steps whose gradients have places of their own."""
    return 1 if sliced else 2


def _stride(task: Task) -> int:
    """Returns the bytes from one vector in shared memory to the next."""
    return -(-task.first_parameters().nbytes // _PAGE) * _PAGE


class _Rank:
    """Vectors of a rank, and the end of its steps.

    Attributes:
        weights: (size,); shared by all ranks where they are updated in slices.
        gradients: (size,) for each place; that of step s belongs in place s modulo their number.
    """

    def __init__(self, rank: int, task: Task, memory: str, library: Path, sliced: bool) -> None:
        """Maps the memory: the barrier, weights, and for each place the gradients of all ranks."""
        first, stride, ranks = task.first_parameters(), _stride(task), task.processes
        shared = np.memmap(memory, np.uint8, "r+")

        def vector(number: int) -> Floats:
            start = _PAGE + number * stride
            numbers: Floats = shared[start : start + first.nbytes].view(first.dtype)
            return numbers

        self.weights, starts = first, [1 + place * ranks for place in range(_places(sliced))]
        if sliced:
            self.weights = vector(0)
            self.weights[:] = first  # every rank does, with the same numbers, before it arrives anywhere
        self.gradients = [vector(start + rank) for start in starts]
        part = slice(first.size * rank // ranks, first.size * (rank + 1) // ranks) if sliced else slice(None)
        # Made once, because steps are short.
        self._library, self._barrier = ctypes.CDLL(str(library)), _pointer(shared)
        self._weights = _pointer(self.weights[part]), ctypes.c_size_t(self.weights[part].size)
        self._all_gradients = [_pointer(vector(start)[part]) for start in starts]
        self._layout = ctypes.c_size_t(stride // first.itemsize), ranks
        self._sliced, self._ranks, self._awaited = sliced, ranks, 0

    def arrive(self) -> None:
        """Says that this rank has written what the others wait for."""
        self._library.arrive(self._barrier)

    def update(self, step: int, factor: float) -> None:
        """Waits for the gradients of a step, and subtracts `factor` times their sum from the weights."""
        self._await_all()
        gradients = self._all_gradients[step % len(self._all_gradients)]
        self._library.update(*self._weights, gradients, *self._layout, ctypes.c_float(factor))
        if self._sliced:
            self.arrive()
            self._await_all()

    def _await_all(self) -> None:
        self._awaited += self._ranks
        if self._library.await_arrivals(self._barrier, ctypes.c_uint32(self._awaited)):
            raise BenchmarkError("Another rank of the shared-memory all-reduce did not come to the barrier.")


def _pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _train_part(rank: int, task: Task, memory: str, library: Path, sliced: bool) -> tuple[list[float], list[float]]:
    """Returns the seconds and the summed costs of each epoch, as one process has them."""
    images, labels, plan, whole = task.images(), task.labels(), task.plan(task.processes), task.plan()
    one_hot = np.eye(task.layers[-1], dtype=np.float32)
    own = _Rank(rank, task, memory, library, sliced)
    weights, gradients = task.views(own.weights), [task.views(nabla) for nabla in own.gradients]

    def gathered(step: int) -> tuple[Floats, Floats]:
        rows = plan.micro_batch(step, rank)
        return scaled(images, rows), one_hot[labels[rows]]

    seconds, costs = [], []
    with np.errstate(over="ignore"):  # 1 / (1 + inf) is the right 0
        for epoch in range(plan.epochs):
            cost, begun_s = 0.0, time.perf_counter()
            steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
            x, y = gathered(steps[0])
            for step in steps:
                cost += gradient(weights, x, y, gradients[step % len(gradients)])
                own.arrive()
                if step + 1 in steps:
                    x, y = gathered(step + 1)  # while others still compute
                own.update(step, task.learning_rate / whole.samples(step, 0))
            seconds.append(time.perf_counter() - begun_s)
            costs.append(cost)
    return seconds, costs
