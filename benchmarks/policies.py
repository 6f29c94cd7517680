"""Cost of a slow worker under each policy: ``python -m benchmarks.policies``."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import click

from benchmarks import machine, mnist_files
from benchmarks.errors import BenchmarkError, JobError
from benchmarks.figures import Measurement, Spread, steady
from benchmarks.report.files import write_report
from benchmarks.report.tables import machine_section, table
from benchmarks.service_jobs import JobRun, Service, running_service
from benchmarks.works import PAPER_500, RAY_TRAIN, Work
from nablad.errors import NablaError
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1.job_spec_pb2 import JobSpec
from workers.runtime.failpoints import VARIABLE

__all__ = ["Case", "Result", "main", "markdown"]

_DISTRIBUTIONS = ("nablad", "grpcio", "ray")
_MOST_TRIES = 3
# One worker more than CPUs on a small machine: while one is slow, it mostly sleeps.
_WORKERS = 3
_WORKS = (
    replace(PAPER_500, batch_size=1500, rows=30_000, epochs=4),
    replace(RAY_TRAIN, batch_size=192, rows=9_600, epochs=4),
)
_POLICIES = {"sync": spec_pb.POLICY_SYNC, "backup": spec_pb.POLICY_BACKUP}


@dataclass(frozen=True)
class Case:
    """A job.

    Attributes:
        work: The network and its mini-batches.
        slow: Whether one of its workers has a fifth of its speed.
        policy: Name of its policy.
    """

    work: Work
    slow: bool
    policy: str

    @property
    def title(self) -> str:
        """Title in the raw data."""
        return f"{self.work.title}, {'one slow worker' if self.slow else 'equal workers'}, {self.policy}"

    def spec(self) -> JobSpec:
        """Returns the job: one micro-batch for each worker, of which one may be missing with `backup`."""
        spec = self.work.spec()
        spec.distribution.workers = spec.distribution.micro_batches = _WORKERS
        spec.distribution.policy.name = _POLICIES[self.policy]
        return spec


@dataclass
class Result:
    """Measurements of a case.

    Attributes:
        measured: Speeds in applied samples per second, and costs, of each job.
        step_us: Microseconds of a mean step of each job.
        dropped: Share of the samples that was dropped in each job.
    """

    measured: list[Measurement] = field(default_factory=list)
    step_us: list[float] = field(default_factory=list)
    dropped: list[float] = field(default_factory=list)

    def add(self, run: JobRun) -> None:
        """Adds a job."""
        last = run.epochs[-1]
        self.measured.append(run.measurement)
        self.step_us.append(run.profile.step_us)
        self.dropped.append(last.dropped_samples / (last.samples + last.dropped_samples))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--mnist", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the four gzipped IDX files.")
@click.option("--repetitions", type=click.IntRange(min=1), default=3, show_default=True, help="In turns.")
@click.option("--quick", is_flag=True, help="Only see whether it runs: few rows; writes nothing.")
def main(mnist: Path | None, repetitions: int, quick: bool) -> None:
    """Train with the policies sync and backup, with equal workers and with a slow one, and compare the speed."""
    works = [replace(work, rows=4 * work.batch_size, epochs=2) for work in _WORKS] if quick else _WORKS
    try:
        with tempfile.TemporaryDirectory(prefix="nablad-bench-") as name:
            folder = Path(name)
            results = _measure(works, mnist_files.FirstRows(mnist_files.find(mnist), folder), folder, repetitions)
    except (BenchmarkError, FileNotFoundError, NablaError) as error:
        raise click.ClickException(str(error)) from error
    document = markdown(results, repetitions)
    click.echo(document)
    if not quick:
        write_report("policies", document, {case.title: result.measured for case, result in results.items()})


def _measure(works: Sequence[Work], rows: mnist_files.FirstRows, folder: Path, repetitions: int) -> dict[Case, Result]:
    datasets = {work.spec().data.train: rows.files(work.rows) for work in works}
    fuse = folder / "slow"
    # The first worker that has computed a gradient creates the file, and is slow for as long as it lives.
    environment = {VARIABLE: f"worker.computing=slow!{fuse}"}
    cases = [Case(work, slow, policy) for work in works for slow in (False, True) for policy in _POLICIES]
    results = {case: Result() for case in cases}
    with ExitStack() as services:
        fast = services.enter_context(running_service(datasets, workers=_WORKERS))
        slowed = services.enter_context(running_service(datasets, workers=_WORKERS, environment=environment))
        for service in (fast, slowed):
            _run(service, cases[0], fuse)  # Ray is up and warm after its first job
        for _ in range(repetitions):
            for case in cases:
                results[case].add(_run(slowed if case.slow else fast, case, fuse))
    return results


def _run(service: Service, case: Case, fuse: Path) -> JobRun:
    """Runs a job in one attempt: the workers of another one are all fast."""
    for _ in range(_MOST_TRIES):
        fuse.unlink(missing_ok=True)
        run = service.run(case.spec())
        if len(run.epochs) == case.work.epochs:
            return run
    raise JobError(f"The job of {case.title} lost an attempt {_MOST_TRIES} times.")


def markdown(results: Mapping[Case, Result], repetitions: int) -> str:
    """Returns the whole document."""
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        **machine.describe(_DISTRIBUTIONS),
        "repetitions": repetitions,
    }
    heads = [
        "work",
        "workers",
        "policy",
        "ms/step",
        "steps/s to sync",
        "samples/s",
        "range",
        "samples/s to sync",
        "dropped",
    ]
    return "\n\n".join(
        [
            "# What a slow worker costs under each policy",
            "Made by `python -m benchmarks.policies`: three workers and three micro-batches, jobs in turns; medians of "
            "all epochs but the first of each job. With `backup`, one micro-batch of a step may be missing. The slow "
            "worker has a fifth of its speed: it pauses for four times the CPU time that it uses. Samples are those "
            "that were applied.",
            machine_section(facts),
            "## Speed\n\n" + table(heads, list(_rows(results)), words=3),
        ]
    )


def _rows(results: Mapping[Case, Result]) -> Iterator[Sequence[str]]:
    for case, result in results.items():
        sync = results[replace(case, policy="sync")]
        speed, sync_speed = steady(result.measured), steady(sync.measured)
        yield [
            case.work.title,
            "one slow" if case.slow else "equal",
            case.policy,
            f"{median(result.step_us) / 1000:.2f}",
            f"{median(sync.step_us) / median(result.step_us):.2f}",
            f"{speed.median:,.0f}",
            f"{speed.minimum:,.0f}–{speed.maximum:,.0f}",
            _ratio(speed, sync_speed),
            f"{median(result.dropped):.0%}",
        ]


def _ratio(speed: Spread, other: Spread) -> str:
    return f"{speed.median / other.median:.2f}"


if __name__ == "__main__":
    main()
