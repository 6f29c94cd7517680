"""A native step core with workers in this process, and the Python path beside it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.image import Snapshot
from service.parameter_server.shard.norms import Norms
from service.parameter_server.shard.shard import Shard
from service.parameter_server.shard.step_core import RunPart, Status, StepCore, StepsWanted
from workers.mathematics.optimizers import optimizer
from workers.mathematics.sums import SampleSums
from workers.native.library import missing_reason
from workers.transport.run_memory import (
    BELL_BYTES,
    CONTROL_BYTES,
    RunEnd,
    RunMemory,
    WorkerMemory,
    address_of,
    worker_memory_bytes,
)
from workers.transport.shared_memory import SharedMemory

BLOCK = 128 * 1024
SECONDS = 30.0

Vector = np.ndarray[Any, np.dtype[Any]]


def _shard(rule: str, dtype: str, size: int, starts: Sequence[int]) -> Shard:
    start = np.random.default_rng(size).normal(size=size).astype(dtype)
    return Shard(optimizer(rule, 0.3), Snapshot(ps_pb.TrainingState(), start), starts, keep_best=False)


def _layer_starts(size: int) -> list[int]:
    """Layers of one number, of odd lengths, over several blocks and up to their borders."""
    return sorted({0, *(start for start in (1, size // 3, BLOCK - 3, BLOCK, 2 * BLOCK + 1, size - 1) if start < size)})


@lru_cache(maxsize=32)
def _gradient(dtype: str, size: int, step: int, part: int) -> Vector:
    """Numbers from denormal to huge, and some zeros."""
    least, most = (-44, 18) if dtype == "float32" else (-322, 150)
    generator = np.random.default_rng([step, part])
    scale = 10.0 ** generator.integers(least, most, size)
    return (generator.normal(size=size) * scale * generator.integers(0, 8, size)).astype(dtype)


class Pair:
    """A native core with workers of this process, and the Python path, from the same weights on.

    Attributes:
        shard: Shard of the core.
        core: The core.
        ends: Worker's end of each part; each part has a worker of its own.
        parts: Places of the parts.
        run: Number of the present run.
        bell: Address of the bell.
    """

    def __init__(self, rule: str = "adam", dtype: str = "float64", size: int = 50, parts: int = 3) -> None:
        self.shard, self._twin = (_shard(rule, dtype, size, _layer_starts(size)) for _ in range(2))
        memory = RunMemory.create()
        control = memory.control.vector(np.uint8, CONTROL_BYTES)
        bell = memory.bell.vector(np.uint8, BELL_BYTES)
        self.core, self.bell = StepCore(self.shard, control, bell, threads=3), address_of(bell)
        self.ends, self.parts = [], []
        for part in range(parts):
            shared = SharedMemory.create("worker", worker_memory_bytes(dtype, size, 1), others_may_write=True)
            results = WorkerMemory(shared, dtype, size, 1)
            self.ends.append(RunEnd(memory, results))
            self.parts.append(RunPart(results.slot_address(0), address_of(results.gradients[0]), part))
        self.run = 0
        self.begin_run()

    def begin_run(self) -> None:
        """Begins a run with the present weights."""
        self.run += 1
        self.core.begin_run(self.run, self.parts, 0.0, 0.0)

    def gradient(self, step: int, part: int) -> Vector:
        """The gradient of a part, the same for the same step and part."""
        return _gradient(self.shard.parameters.dtype.name, self.shard.parameters.size, step, part)

    @staticmethod
    def sums(step: int, part: int) -> SampleSums:
        """The sums of a part: costs of such different sizes that each order of addition has another result."""
        return SampleSums((-1.0) ** part * 10.1 ** ((5 * part + step) % 17), 10 + part, part)

    def wanted(self, steps: int, *, publish_last: bool = True) -> StepsWanted:
        """So many steps, of which every second one is measured."""
        samples = [self.sums(0, part).samples for part in range(len(self.parts))]
        return StepsWanted([step % 2 == 0 for step in range(steps)], samples, samples, publish_last)

    def report(self, part: int, step: int | None = None, run: int | None = None, **wrong: float) -> None:
        """Reports the result of a part for the present step, or for another step or run; some of its sums are wrong."""
        step = self.shard.version if step is None else step
        self.ends[part].gradients[0][:] = self.gradient(step, part)
        self.ring(part, step, run, **wrong)

    def ring(self, part: int, step: int | None = None, run: int | None = None, **wrong: Any) -> None:
        """Reports a result whose gradient is what lies in the slot."""
        step = self.shard.version if step is None else step
        sums = replace(self.sums(step, part), **wrong)
        self.ends[part].report_result(0, self.run if run is None else run, step, sums, 0.25)

    def make_step(self) -> Norms:
        """Makes a step with the right results, whose norms are measured."""
        for part in range(len(self.parts)):
            self.report(part)
        report = self.core.make_steps(self.wanted(1), SECONDS)
        assert report.status == Status.DONE
        return report.made.norms[0]

    def state(self) -> list[bytes]:
        """Weights and moments."""
        return _state(self.shard)

    def expected(self) -> list[Norms]:
        """Brings the Python path to the step of the core; returns the norms of each step on the way."""
        norms: list[Norms] = []
        parts = len(self.parts)
        while self._twin.version < self.shard.version:
            step = self._twin.version
            for part in reversed(range(parts)):
                self._twin.add_gradient(step, part, parts, self.gradient(step, part), "")
            samples = sum(self.sums(step, part).samples for part in range(parts))
            measured = self._twin.update(step, samples, with_norms=True)
            assert measured is not None
            norms.append(measured)
        return norms

    def require_equal(self) -> list[Norms]:
        """Compares weights and moments with those of the Python path; returns its norms."""
        norms = self.expected()
        assert self.state() == _state(self._twin)
        assert self.shard.weights.updates == self._twin.weights.updates
        return norms


def _state(shard: Shard) -> list[bytes]:
    return [vector.tobytes() for vector in (shard.parameters, *shard.weights.moments)]


@pytest.fixture(scope="module")
def make_pair() -> Iterator[Callable[..., Pair]]:
    """Makes a core and the Python path, whose numbers may overflow as on the thread that makes the steps."""
    if reason := missing_reason():
        pytest.skip(reason)
    with np.errstate(over="ignore", invalid="ignore"):
        yield Pair
