"""The scale model: ``python -m benchmarks.scale`` measures its parts, checks it and predicts. README.md explains it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import click

from benchmarks import machine
from benchmarks.errors import BenchmarkError
from benchmarks.scale import check, parts
from benchmarks.scale.plot import draw
from benchmarks.scale.quiet import Quiet
from benchmarks.scale.report import markdown
from benchmarks.scale.results import Predictions, Results

_RESULTS = Path(__file__).parents[1] / "results"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--repetitions", type=click.IntRange(min=1), default=3, show_default=True, help="Of the check.")
@click.option("--attempts", type=click.IntRange(min=1), default=4, show_default=True, help="Of what others disturb.")
@click.option("--patience", default=60.0, show_default=True, help="Seconds to wait for a calm machine, each time.")
@click.option("--quick", "in_short", is_flag=True, help="Only see whether it runs: few steps, no wait; writes nothing.")
def main(repetitions: int, attempts: int, patience: float, in_short: bool) -> None:
    """Measure the parts of a step, check the model that is made of them, and predict.

    Results are written to benchmarks/results.
    """
    quiet = Quiet(machine.Stage(0 if in_short else patience), 1 if in_short else attempts)
    cases = [replace(case, epochs=2) for case in check.CASES] if in_short else check.CASES
    try:
        results = _measure(quiet, cases, 1 if in_short else repetitions)
    except BenchmarkError as error:
        raise click.ClickException(str(error)) from error
    click.echo(markdown(results))
    if not in_short:
        _write(results)


def _measure(quiet: Quiet, cases: Sequence[check.Case], repetitions: int) -> Results:
    measured = parts.measure(quiet)
    checked = check.check(measured, cases, repetitions, quiet)
    return Results(
        datetime.now(UTC).date().isoformat(),
        machine.describe(),
        quiet.others_cpus,
        measured,
        checked,
        Predictions.of(measured),
    )


def _write(results: Results) -> None:
    (_RESULTS / "scale.json").write_text(json.dumps(asdict(results), indent=2) + "\n", encoding="utf-8")
    (_RESULTS / "scale.md").write_text(markdown(results) + "\n", encoding="utf-8")
    draw(results.parts, _RESULTS / "scale.png")


if __name__ == "__main__":
    main()
