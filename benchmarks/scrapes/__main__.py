"""Cost of being scraped: ``python -m benchmarks.scrapes``. ../README.md explains it."""

import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click

from benchmarks import machine, mnist_files
from benchmarks.errors import BenchmarkError
from benchmarks.report.files import write_report
from benchmarks.scrapes import trial
from benchmarks.scrapes.page import measure
from benchmarks.scrapes.report import Results, markdown
from nablad.errors import NablaError

_DISTRIBUTIONS = ("nablad", "grpcio", "ray", "prometheus-client")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--mnist", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the four gzipped IDX files.")
@click.option("--jobs", default=1000, show_default=True, help="On the page whose scrape is timed.")
@click.option("--rounds", type=click.IntRange(min=1), default=6, show_default=True, help="With and without scrapes.")
@click.option("--seconds", default=15.0, show_default=True, help="Of each window of these.")
@click.option("--every", default=1.0, show_default=True, help="Seconds between two scrapes of the training.")
@click.option("--patience", default=60.0, show_default=True, help="Seconds to wait for a calm machine.")
@click.option("--quick", "in_short", is_flag=True, help="Only see whether it runs; writes nothing.")
def main(
    mnist: Path | None,
    jobs: int,
    rounds: int,
    seconds: float,
    every: float,
    patience: float,
    in_short: bool,
) -> None:
    """Scrape a service with many jobs, and one while it trains, and see what it takes and costs.

    Results are written to benchmarks/results.
    """
    if in_short:
        jobs, rounds, seconds, patience = 10, 1, 6.0, 0.0
    stage = machine.Stage(patience)
    say = partial(click.echo, err=True)
    try:
        folder = mnist_files.find(mnist)
        stage.clear("Scrapes")
        page = measure(jobs, workers=4, layers=3, scrapes=9)
        with tempfile.TemporaryDirectory(prefix="nablad-bench-") as scratch:
            rows = mnist_files.FirstRows(folder, Path(scratch))
            scraped = trial.run_trial(rows, rounds, seconds, every, say)
    except (BenchmarkError, FileNotFoundError, NablaError) as error:
        raise click.ClickException(str(error)) from error
    facts = {"date": datetime.now(UTC).date().isoformat(), **machine.describe(_DISTRIBUTIONS)}
    results = Results(page, every, scraped)
    document = markdown(results, facts)
    click.echo(document)
    if not in_short:
        everything = {"machine": facts, **asdict(results)}
        write_report("scrapes", document, everything)


if __name__ == "__main__":
    main()
