"""Samples per second: the service beside plain numpy and beside the limit of the BLAS, in turns."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import click

from benchmarks import blas_limit, mnist_files, plain_numpy
from benchmarks.figures import Epoch, Spread
from benchmarks.machine import Calm, await_calm
from benchmarks.through_service import JobRun, mnist_service
from nablad.v1.job_spec_pb2 import JobSpec

__all__ = ["COST_TOLERANCE", "Contest", "repeat"]

# Relative. Service and plain numpy add in different orders, so their float32 weights part in the last bits.
COST_TOLERANCE = 2e-5


@dataclass
class Contest:
    """Repeated measurements at one batch size.

    Attributes:
        spec: Completed; without validation, so that a worker's seconds are those of steps alone.
        service: Jobs through the service.
        plain: Runs in plain numpy.
        limit: Samples per second of each epoch of products, one list for each repetition.
        calm: What was going on before each measurement.
    """

    spec: JobSpec
    service: list[JobRun] = field(default_factory=list)
    plain: list[list[Epoch]] = field(default_factory=list)
    limit: list[list[float]] = field(default_factory=list)
    calm: list[Calm] = field(default_factory=list)

    def report(self) -> dict[str, object]:
        """The figures over all repetitions, the first epoch of each left out."""
        speeds = {
            "service": _steady([epoch.samples_per_second for epoch in run.epochs] for run in self.service),
            "plain_numpy": _steady([epoch.samples_per_second for epoch in run] for run in self.plain),
            "blas_limit": _steady(self.limit),
        }
        return {
            "batch_size": self.spec.training.batch_size,
            "samples_per_second": speeds,
            "ratio_to_plain_numpy": speeds["service"].median / speeds["plain_numpy"].median,
            "ratio_to_blas_limit": speeds["service"].median / speeds["blas_limit"].median,
            "step_ms": {what: median(run.step_ms[what] for run in self.service) for what in self.service[0].step_ms},
            "start_s": Spread.of([run.start_s for run in self.service]),
            "cost_service": self.service[0].epochs[-1].training_cost,
            "cost_plain_numpy": self.plain[0][-1].cost,
            "largest_cost_difference": max(self._cost_differences()),
        }

    def check_costs(self) -> None:
        """Fails unless service and plain numpy did the same work."""
        difference = max(self._cost_differences())
        assert difference < COST_TOLERANCE, (
            f"At batch size {self.spec.training.batch_size}, the training costs of service and plain numpy should "
            f"agree to {COST_TOLERANCE:g}, but differ by {difference:.2g} of their size: they do not do the same work."
        )

    def _cost_differences(self) -> Iterator[float]:
        """Relative, for each epoch of each repetition."""
        for served, plain in zip(self.service, self.plain, strict=True):
            for ours, by_hand in zip(served.epochs, plain, strict=True):
                yield abs(ours.training_cost / by_hand.cost - 1)


def repeat(contests: Sequence[Contest], folder: Path, repetitions: int, patience_s: float) -> None:
    """Measures everything `repetitions` times, in turns.

    Each time the service is a new one, and there is none while its rivals run.

    Args:
        contests: One for each batch size; they get the measurements.
        folder: Of the MNIST files.
        repetitions: How often.
        patience_s: Seconds to wait for a calm machine before each measurement.
    """
    images, labels = mnist_files.read(folder, mnist_files.TRAIN)
    for number in range(repetitions):
        for contest in contests:
            _announce(contest, patience_s, f"Repetition {number + 1}: plain numpy")
            contest.plain.append(plain_numpy.train(images, labels, contest.spec))
            _announce(contest, patience_s, f"Repetition {number + 1}: the limit of the BLAS")
            contest.limit.append(_products(contest.spec, len(images)))
        with mnist_service(folder) as service:
            for contest in contests:
                _announce(contest, patience_s, f"Repetition {number + 1}: the service")
                contest.service.append(service.run(contest.spec))


def _products(spec: JobSpec, rows: int) -> list[float]:
    steps = rows // spec.training.batch_size
    return blas_limit.samples_per_second(
        spec.model.layers, spec.training.batch_size, steps, spec.training.epochs, spec.distribution.workers
    )


def _announce(contest: Contest, patience_s: float, what: str) -> None:
    contest.calm.append(await_calm(patience_s))
    click.echo(f"{what}, batch size {contest.spec.training.batch_size} …", err=True)


def _steady(runs: Iterable[list[float]]) -> Spread:
    """Over the epochs of all runs but the first one of each."""
    return Spread.of([value for run in runs for value in run[1:]])
