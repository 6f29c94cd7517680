"""The benchmark: ``python -m benchmarks``. README.md explains it."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from benchmarks import accuracy, machine, memory, mnist_files, speed
from benchmarks.contestants import OPTIONAL
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Spread
from benchmarks.report import markdown
from benchmarks.report.files import write_report
from benchmarks.requirements import verdicts
from benchmarks.works import MESSAGES, WIDE, WORKS, Work, quick
from nablad.errors import NablaError

_ALL_ROWS = 60_000


@dataclass(frozen=True)
class _Extent:
    """Extent of the measurements.

    Attributes:
        works: For the speed.
        repetitions: Of the speed.
        memory: The work for the memory; None to leave it out.
        accuracy_epochs: 0 to leave the accuracy out.
    """

    works: Sequence[Work]
    repetitions: int
    memory: Work | None
    accuracy_epochs: int


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--mnist", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the four gzipped IDX files.")
@click.option(
    "--only", multiple=True, type=click.Choice([work.name for work in WORKS]), help="Only the speed on these works."
)
@click.option(
    "--without",
    multiple=True,
    type=click.Choice(OPTIONAL),
    metavar="NAME",
    help=f"Leave a contestant out, e.g. one that is not installed: {', '.join(OPTIONAL)}.",
)
@click.option("--repetitions", type=click.IntRange(min=1), default=3, show_default=True, help="Of the speed.")
@click.option("--patience", default=60.0, show_default=True, help="Seconds to wait for a calm machine, each time.")
@click.option("--quick", "in_short", is_flag=True, help="Only see whether it runs: a few steps, no wait.")
def main(
    mnist: Path | None,
    only: Sequence[str],
    without: Sequence[str],
    repetitions: int,
    patience: float,
    in_short: bool,
) -> None:
    """Measure the service and its rivals on MNIST, and show the results.

    Those of a whole run are written to benchmarks/results.
    """
    works = [work.without(without) for work in WORKS if not only or work.name in only]
    whole = _Extent(works, repetitions, replace(WIDE, rows=_ALL_ROWS, epochs=2), accuracy.EPOCHS)
    if only:
        whole = replace(whole, memory=None, accuracy_epochs=0)
    extent = _shortened(whole) if in_short else whole
    try:
        results = _measure(mnist_files.find(mnist), extent, machine.Stage(0 if in_short else patience))
        results["left_out"] = sorted(without)
        click.echo(markdown(results))
        if not (only or without or in_short):
            accuracy.check(results["accuracy"])
            write_report("mnist", markdown(results), results)
    except (BenchmarkError, FileNotFoundError, NablaError) as error:
        raise click.ClickException(str(error)) from error


def _shortened(extent: _Extent) -> _Extent:
    return _Extent(
        quick(extent.works),
        repetitions=1,
        memory=extent.memory and quick([extent.memory])[0],
        accuracy_epochs=min(extent.accuracy_epochs, 2),
    )


def _measure(mnist: Path, extent: _Extent, stage: machine.Stage) -> dict[str, Any]:
    """Measures all that is wanted; returns the content of the results file."""
    results: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat(), "machine": machine.describe()}
    with tempfile.TemporaryDirectory(prefix="nablad-bench-") as folder:
        rows = mnist_files.FirstRows(mnist, Path(folder))
        results |= _speeds(speed.measure(extent.works, rows, extent.repetitions, stage), extent.repetitions)
        if extent.memory:
            results["memory"] = memory.measure(extent.memory, rows, stage)
    if extent.accuracy_epochs:
        results["accuracy"] = accuracy.measure(mnist, extent.accuracy_epochs, stage)
    results["calm"] = stage.looks
    plain: dict[str, Any] = json.loads(json.dumps(results, default=asdict))
    return plain | {"requirements": [asdict(verdict) | {"outcome": verdict.outcome} for verdict in verdicts(plain)]}


def _speeds(contests: Sequence[speed.Contest], repetitions: int) -> dict[str, Any]:
    """Returns the results of the contests and of the jobs in them."""
    jobs = [job for contest in contests for runs in contest.jobs.values() for job in runs]
    results: dict[str, Any] = {
        "repetitions": repetitions,
        "speed": {contest.work.name: contest.report() for contest in contests},
        "start_s": Spread.of([job.start_s for job in jobs]),
    }
    for contest in contests:
        if contest.work.name == MESSAGES.name and {"service-inline", "loopback-limit"} <= contest.measured.keys():
            results["messages"] = speed.messages(contest)
    return results


if __name__ == "__main__":
    main()
