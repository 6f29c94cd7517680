"""The model beside the real thing: the same steps, predicted and measured."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from benchmarks.scale import synthetic
from benchmarks.scale.forms import Form
from benchmarks.scale.model import step
from benchmarks.scale.processes import EpochSteps, quietest, run
from benchmarks.scale.quantities import Parts, host_link
from benchmarks.scale.quiet import Quiet
from benchmarks.scale.stages import Work

__all__ = ["CASES", "Case", "Checked", "check"]

_TRANSPORTS = ("shared", "inline")
_WORKERS = (1, 2, 4)


@dataclass(frozen=True)
class Case:
    """What is run.

    Attributes:
        form: Of the network.
        batch_size: Rows of a step, over all workers.
        steps: Of an epoch.
        epochs: The first of which warms up.
    """

    form: Form
    batch_size: int
    steps: int
    epochs: int


CASES = (
    Case(Form((784, 100, 50, 10)), 500, 40, 20),
    Case(Form((784, 100, 50, 10)), 100, 150, 20),
    Case(Form((784, 512, 512, 10)), 500, 10, 16),
)


@dataclass(frozen=True)
class Checked:
    """A step, predicted and measured, in seconds.

    Attributes:
        form: Of the network.
        batch_size: Rows of a step.
        workers: Processes.
        transport: "shared" or "inline".
        measured: The lower quartile of the epochs of all repetitions.
        median: Of the same.
        predicted: By the model.
        computing: What a worker computes, measured; where CPUs are too few it stands still in between.
        predicted_computing: By the model, on a CPU of its own.
        server: What the parameter server's thread does, measured.
        predicted_server: By the model.
    """

    form: str
    batch_size: int
    workers: int
    transport: str
    measured: float
    median: float
    predicted: float
    computing: float
    predicted_computing: float
    server: float
    predicted_server: float

    @property
    def error(self) -> float:
        """Of the prediction, relative to what was measured."""
        return self.predicted / self.measured - 1


def check(parts: Parts, cases: Sequence[Case], repetitions: int, quiet: Quiet) -> list[Checked]:
    """Runs every case with 1, 2 and 4 workers and both transports, in turns.

    Raises:
        BenchmarkError: A process failed.
    """
    runs: dict[tuple[Case, str, int], list[EpochSteps]] = {}
    for repetition in range(1, repetitions + 1):
        for case, transport, workers in _settings(cases):
            job = synthetic.spec(case.form.layers, case.batch_size, case.epochs, workers, transport)
            what = f"Check {repetition}: {case.form.title}, batch {case.batch_size}, {workers} workers, {transport}"
            epochs = quiet.measure(what, partial(run, job, case.batch_size * case.steps))
            runs.setdefault((case, transport, workers), []).extend(epochs)
    return [_checked(parts, *setting, epochs) for setting, epochs in runs.items()]


def _settings(cases: Sequence[Case]) -> Iterator[tuple[Case, str, int]]:
    return ((case, transport, workers) for case in cases for transport in _TRANSPORTS for workers in _WORKERS)


def _checked(parts: Parts, case: Case, transport: str, workers: int, epochs: Sequence[EpochSteps]) -> Checked:
    work = Work(case.form, case.batch_size / workers, workers)
    predicted = step(work, parts, host_link(parts, transport), cpus=os.cpu_count())
    quiet = quietest(epochs)
    return Checked(
        case.form.title, case.batch_size, workers, transport,
        measured=quiet.step_s,
        median=median(epoch.step_s for epoch in epochs),
        predicted=predicted.seconds,
        computing=quiet.worker_s["computing"],
        predicted_computing=predicted.computing,
        server=sum(seconds for activity, seconds in quiet.server_s.items() if activity not in {"waiting", "booking"}),
        predicted_server=predicted.server,
    )  # fmt: skip
