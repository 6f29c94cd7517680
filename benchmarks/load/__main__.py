"""The load benchmark: ``python -m benchmarks.load``. ../README.md explains it."""

import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from benchmarks import machine, mnist_files
from benchmarks.errors import BenchmarkError
from benchmarks.load.crowd import CrowdSize
from benchmarks.load.report import markdown
from benchmarks.load.trial import Extent, run_trial
from benchmarks.report.files import write_report
from nablad.errors import NablaError

_DISTRIBUTIONS = ("nablad", "grpcio", "ray")
_SHORT = Extent(queued=20, crowd=CrowdSize(20, 4), seconds=6, rounds=1, started=2)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--mnist", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the four gzipped IDX files.")
@click.option("--rounds", type=click.IntRange(min=1), default=8, show_default=True, help="Of all three windows.")
@click.option("--seconds", default=15.0, show_default=True, help="Of each window.")
@click.option("--patience", default=60.0, show_default=True, help="Seconds to wait for a calm machine.")
@click.option(
    "--quick", "in_short", is_flag=True, help="Only see whether it runs: short, few, no wait; writes nothing."
)
def main(mnist: Path | None, rounds: int, seconds: float, patience: float, in_short: bool) -> None:
    """Train with a long queue and a crowd of watchers, and see what calls take and what it costs the training.

    Results are written to benchmarks/results.
    """
    extent = _SHORT if in_short else Extent(rounds=rounds, seconds=seconds)
    stage = machine.Stage(0 if in_short else patience)
    try:
        folder = mnist_files.find(mnist)
        stage.clear("Load")
        with tempfile.TemporaryDirectory(prefix="nablad-bench-") as scratch:
            trial = run_trial(
                mnist_files.FirstRows(folder, Path(scratch)), extent, lambda what: click.echo(what, err=True)
            )
    except (BenchmarkError, FileNotFoundError, NablaError) as error:
        raise click.ClickException(str(error)) from error
    facts = {"date": datetime.now(UTC).date().isoformat(), **machine.describe(_DISTRIBUTIONS)}
    document = markdown(trial, facts)
    click.echo(document)
    if not in_short:
        results = {"machine": facts, "calm": [asdict(look) for look in stage.looks], **asdict(trial)}
        write_report("load", document, results)


if __name__ == "__main__":
    main()
