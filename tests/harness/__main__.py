"""The robustness run: ``python -m tests.harness``. docs/robustness.md explains it."""

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import click

from tests.harness.campaign import Result, run_scenario
from tests.harness.invariants import References
from tests.harness.report import RESULTS, Report, machine
from tests.harness.scenarios import SCENARIOS, Scenario

_JSON = RESULTS / "robustness.json"
_NAMES = {scenario.name: scenario for scenario in SCENARIOS}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--runs", type=click.IntRange(min=1), default=20, show_default=True, help="Of each scenario.")
@click.option("--seed", default=0, show_default=True, help="Of the first run; each further one has the next.")
@click.option(
    "--only", "names", multiple=True, type=click.Choice(list(_NAMES)), help="Only these; results are kept with --save."
)
@click.option("--save", is_flag=True, help="Keep the results also of a part of the scenarios.")
@click.option("--append", is_flag=True, help="Keep them beside those that are there; they should be of the same code.")
@click.option("--lanes", type=click.IntRange(min=1), default=2, show_default=True, help="Scenarios at a time.")
def main(runs: int, seed: int, names: Sequence[str], lanes: int, *, save: bool, append: bool) -> None:
    """Disturb jobs in every way that the table knows, and look whether anything of their results is lost.

    Results are written to benchmarks/results. Fails if an invariant did not hold.
    """
    scenarios = [_NAMES[name] for name in names] or list(SCENARIOS)
    before: dict[str, Any] = (
        json.loads(_JSON.read_text(encoding="utf-8")) if append else {"minutes": 0.0, "results": []}
    )
    begin_s = time.monotonic()
    results = [*map(Result.of, before["results"]), *_run(scenarios, range(seed, seed + runs), lanes)]
    minutes = before["minutes"] + (time.monotonic() - begin_s) / 60
    ran = [scenario for scenario in SCENARIOS if scenario.name in {result.scenario for result in results}]
    report = Report(datetime.now(UTC).date().isoformat(), machine(), minutes, ran, results)
    click.echo(report.markdown())
    if save or append or not names:
        _JSON.write_text(json.dumps(report.json(), indent=1) + "\n", encoding="utf-8")
        (RESULTS / "robustness.md").write_text(report.markdown() + "\n", encoding="utf-8")
    if not report.holds:
        raise click.ClickException("not every invariant held")


def _run(scenarios: Sequence[Scenario], seeds: Sequence[int], lanes: int) -> list[Result]:
    references = References()
    with ThreadPoolExecutor(lanes) as pool:
        rows = list(pool.map(lambda scenario: run_scenario(scenario, seeds, references, _tell), scenarios))
    return [result for row in rows for result in row]


def _tell(result: Result) -> None:
    work = result.work
    click.echo(
        f"{result.scenario:>20} seed {result.seed:>3}: {work.workers} workers, {work.transport}, "
        f"{work.arithmetic.optimizer} {work.arithmetic.batch_size}, {work.checkpoints}: {result.faults} faults, "
        f"{result.attempts} attempts, stall {result.stall_s:.1f} s, {result.seconds:.1f} s"
    )
    for name, sentences in result.broken.items():
        for sentence in sentences:
            click.secho(f"    {name}: {sentence}", fg="red")


if __name__ == "__main__":
    main()
