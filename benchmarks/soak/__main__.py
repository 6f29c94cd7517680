"""The soak: ``python -m benchmarks.soak``. ../README.md explains it."""

from dataclasses import asdict
from datetime import UTC, datetime

import click

from benchmarks import machine
from benchmarks.errors import BenchmarkError
from benchmarks.report.files import write_report
from benchmarks.soak.report import markdown
from benchmarks.soak.run import Extent, run_soak
from nablad.errors import NablaError

_DISTRIBUTIONS = ("nablad", "grpcio", "ray")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--jobs", type=click.IntRange(min=1), default=200, show_default=True, help="After the warm-up.")
@click.option("--quick", "in_short", is_flag=True, help="Only see whether it runs: 6 jobs; writes nothing.")
def main(jobs: int, in_short: bool) -> None:
    """Run many short jobs in a row on one daemon, and see whether anything grows.

    Results are written to benchmarks/results.
    """
    extent = Extent(warm_up=2, jobs=4, every=2) if in_short else Extent(jobs=jobs)
    try:
        soak = run_soak(extent, lambda what: click.echo(what, err=True))
    except (BenchmarkError, NablaError) as error:
        raise click.ClickException(str(error)) from error
    facts = {"date": datetime.now(UTC).date().isoformat(), **machine.describe(_DISTRIBUTIONS)}
    document = markdown(soak, facts)
    click.echo(document)
    if not in_short:
        results = {"machine": facts, "extent": asdict(extent), **asdict(soak)}
        write_report("soak", document, results)


if __name__ == "__main__":
    main()
