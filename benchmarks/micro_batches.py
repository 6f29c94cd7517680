"""Speed by the parts of a mini-batch, for their default: ``python -m benchmarks.micro_batches``."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click

from benchmarks import machine, mnist_files
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Measurement, Spread, steady
from benchmarks.report.files import write_report
from benchmarks.report.tables import machine_section, table
from benchmarks.service_jobs import Service, running_service
from benchmarks.works import PAPER_100, PAPER_500, Work
from nablad.errors import NablaError
from nablad.jobspec import complete
from nablad.v1.job_spec_pb2 import JobSpec

_REFERENCE = 2  # parts
_EPOCHS = 3
_DISTRIBUTIONS = ("nablad", "grpcio", "ray")
_WORKERS = (1, 2)
_PARTS = (1, 2, 4, 8)
_ROWS = 30_000
_WORKS = tuple(
    replace(work, rows=_ROWS, epochs=_EPOCHS)
    for work in (PAPER_100, PAPER_500, replace(PAPER_500, batch_size=1024), replace(PAPER_500, batch_size=2048))
)

# Work, workers and parts.
_Case = tuple[Work, int, int]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--mnist", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the four gzipped IDX files.")
@click.option("--repetitions", type=click.IntRange(min=1), default=4, show_default=True, help="In turns.")
@click.option("--quick", is_flag=True, help="Only see whether it runs: few rows; writes nothing.")
def main(mnist: Path | None, repetitions: int, quick: bool) -> None:
    """Train the paper's network with mini-batches in 1, 2, 4 and 8 parts, by 1 and 2 workers, and compare the speed."""
    works = [replace(work, rows=2 * work.batch_size, epochs=2) for work in _WORKS] if quick else _WORKS
    try:
        with tempfile.TemporaryDirectory(prefix="nablad-bench-") as folder:
            runs = _measure(works, mnist_files.FirstRows(mnist_files.find(mnist), Path(folder)), repetitions)
    except (BenchmarkError, FileNotFoundError, NablaError) as error:
        raise click.ClickException(str(error)) from error
    document = markdown({case: steady(measured) for case, measured in runs.items()}, repetitions)
    click.echo(document)
    if not quick:
        write_report("micro_batches", document, {_title(case): measured for case, measured in runs.items()})


def _measure(works: Sequence[Work], rows: mnist_files.FirstRows, repetitions: int) -> dict[_Case, list[Measurement]]:
    runs: dict[_Case, list[Measurement]] = {}
    datasets: dict[str, Sequence[Path]] = {work.spec().data.train: rows.files(work.rows) for work in works}
    with running_service(datasets) as service:
        _run(service, works[0], 2, 2)  # Ray is up and warm after its first job
        for _ in range(repetitions):
            for work, workers, parts in _cases(works):
                runs.setdefault((work, workers, parts), []).append(_run(service, work, workers, parts))
    return runs


def _cases(works: Sequence[Work]) -> Iterator[_Case]:
    for work in works:
        for workers in _WORKERS:
            yield from ((work, workers, parts) for parts in _PARTS if parts >= workers)


def _title(case: _Case) -> str:
    work, workers, parts = case
    return f"{work.title}, {workers} workers, {parts} parts"


def _run(service: Service, work: Work, workers: int, parts: int) -> Measurement:
    spec = work.spec()
    spec.distribution.workers, spec.distribution.micro_batches = workers, parts
    return service.run(spec).measurement


def default_parts(work: Work) -> int:
    """Returns the parts of a job file that leaves `micro_batches` out."""
    spec = JobSpec()
    spec.CopyFrom(work.spec())
    spec.distribution.ClearField("micro_batches")
    return complete(spec).distribution.micro_batches


def markdown(speeds: Mapping[_Case, Spread], repetitions: int) -> str:
    """The whole document."""
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        **machine.describe(_DISTRIBUTIONS),
        "repetitions": repetitions,
    }
    heads = ["mini-batch", "workers", "parts", "default", "samples/s", "range", f"to {_REFERENCE} parts"]
    return "\n\n".join(
        [
            "# What the parts of a mini-batch cost\n\n"
            "Made by `python -m benchmarks.micro_batches`: 784-100-50-10, jobs in turns; the median of all epochs "
            "but the first of each job.",
            machine_section(facts),
            "## Speed\n\n" + table(heads, list(_rows(speeds)), words=4),
        ]
    )


def _rows(speeds: Mapping[_Case, Spread]) -> Iterator[Sequence[str]]:
    for (work, workers, parts), speed in speeds.items():
        yield [
            f"{work.batch_size}",
            f"{workers}",
            f"{parts}",
            "yes" if parts == default_parts(work) else "",
            f"{speed.median:,.0f}",
            f"{speed.minimum:,.0f}–{speed.maximum:,.0f}",
            f"{speed.median / speeds[work, workers, _REFERENCE].median:.2f}",
        ]


if __name__ == "__main__":
    main()
