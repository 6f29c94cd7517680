"""What it costs to be watched: ``python -m benchmarks.scrapes``. ../README.md explains it."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from benchmarks import machine, mnist_files
from benchmarks.errors import BenchmarkError
from benchmarks.load.windows import Window, compare
from benchmarks.report.tables import table
from benchmarks.scrapes.page import Page, measure
from benchmarks.scrapes.trial import ALONE, SCRAPED, run_trial
from nablad.errors import NablaError

_RESULTS = Path(__file__).parents[1] / "results"
_DISTRIBUTIONS = ("nablad", "grpcio", "ray", "prometheus-client")
_LONGEST_SECONDS = 0.2
_LEAST_RATIO = 0.99


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--mnist", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the four gzipped IDX files.")
@click.option("--jobs", default=1000, show_default=True, help="On the page whose scrape is timed.")
@click.option(
    "--rounds", type=click.IntRange(min=1), default=6, show_default=True, help="Of a training in two windows."
)
@click.option("--seconds", default=15.0, show_default=True, help="Of each window.")
@click.option("--every", default=1.0, show_default=True, help="Seconds between two scrapes of the training.")
@click.option("--patience", default=60.0, show_default=True, help="Seconds to wait for a calm machine.")
@click.option("--quick", "in_short", is_flag=True, help="Only see whether it runs; writes nothing.")
def main(
    mnist: Path | None, jobs: int, rounds: int, seconds: float, every: float, patience: float, in_short: bool
) -> None:
    """Scrape a service with many jobs, and one while it trains, and see what it takes and costs.

    Results are written to benchmarks/results.
    """
    if in_short:
        jobs, rounds, seconds, patience = 10, 1, 6.0, 0.0
    stage = machine.Stage(patience)
    try:
        folder = mnist_files.find(mnist)
        stage.clear("Scrapes")
        page = measure(jobs, workers=4, layers=3, scrapes=9)
        with tempfile.TemporaryDirectory(prefix="nablad-bench-") as scratch:
            rows = mnist_files.FirstRows(folder, Path(scratch))
            windows = run_trial(rows, rounds, seconds, every, lambda what: click.echo(what, err=True))
    except (BenchmarkError, FileNotFoundError, NablaError) as error:
        raise click.ClickException(str(error)) from error
    facts = {"date": datetime.now(UTC).date().isoformat(), **machine.describe(_DISTRIBUTIONS)}
    document = _markdown(page, windows, every, facts)
    click.echo(document)
    if not in_short:
        results = {"machine": facts, "page": asdict(page), "windows": [asdict(window) for window in windows]}
        (_RESULTS / "scrapes.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        (_RESULTS / "scrapes.md").write_text(document + "\n", encoding="utf-8")


def _markdown(page: Page, windows: list[Window], every: float, facts: Mapping[str, str]) -> str:
    kept = compare(windows, SCRAPED, ALONE)
    met = {True: "met", False: "missed"}
    rows = [
        [f"scrape of {page.jobs:,} jobs, median", "< 200 ms", f"{page.typical_seconds * 1e3:.0f} ms",
         met[page.typical_seconds < _LONGEST_SECONDS]],
        [f"training that is scraped every {every:g} s, over alone", "≥ 99 %", str(kept),
         met[kept.mean >= _LEAST_RATIO]],
    ]  # fmt: skip
    speeds = [
        [window.name, f"{window.samples_per_second:,.0f}",
         f"{window.cpu_seconds['daemon'] / (window.end - window.begin):.3f}"]
        for window in windows
    ]  # fmt: skip
    return "\n\n".join(
        [
            "# Scrapes\n\nMade by `make bench-scrapes`; [README.md](../README.md#scrapes) says how to read it.",
            "\n".join(f"- {name}: {value}" for name, value in facts.items()),
            table(["what", "must be", "was", ""], rows),
            _about(page),
            table(["window", "samples/s", "CPUs of the daemon"], speeds),
        ]
    )


def _about(page: Page) -> str:
    return (
        f"The page of {page.jobs:,} jobs that all run, with 4 workers and 3 layers each, has {page.series:,} series "
        f"and {page.size_bytes / 1e6:.1f} MB. The first scrape took {page.first_seconds * 1e3:.0f} ms, "
        f"the longest of {len(page.seconds)} others {max(page.seconds) * 1e3:.0f} ms; prometheus_client takes "
        f"{1 / page.ratio:.1f} times as long for the same series, without sending them."
    )


if __name__ == "__main__":
    main()
