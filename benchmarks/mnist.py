"""The benchmark: how well and how fast the service trains the paper's network on MNIST. README.md explains it."""

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from benchmarks import machine, mnist_files
from benchmarks.report import markdown
from benchmarks.speed import Contest, repeat
from benchmarks.through_service import mnist_service
from nablad.demo.daemon import DaemonError
from nablad.errors import NablaError
from nablad.spec import complete, load
from nablad.v1.job_spec_pb2 import JobSpec

_FOLDER = Path(__file__).parent
_BATCH_SIZES = (100, 500)
_LEAST_ACCURACY = 0.975
_EPOCH_FIGURES = ("epoch", "training_cost", "training_accuracy", "validation_cost", "validation_accuracy")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--mnist", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the four gzipped IDX files.")
@click.option("--repetitions", type=click.IntRange(min=1), default=3, show_default=True, help="Of the speed part.")
@click.option("--patience", default=60.0, show_default=True, help="Seconds to wait for a calm machine, each time.")
@click.option("--quick", is_flag=True, help="Only see whether it runs: two epochs, no wait, nothing written.")
def main(mnist: Path | None, repetitions: int, patience: float, quick: bool) -> None:
    """Measure accuracy and speed on MNIST; show the results and write them to benchmarks/results."""
    try:
        folder = mnist_files.find(mnist)
        if quick:
            click.echo(markdown(_measure(folder, 2, 2, repetitions=1, patience_s=0)))
            return
        results = _measure(folder, 30, 4, repetitions, patience)
    except (FileNotFoundError, DaemonError, NablaError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(markdown(results))
    _check_accuracy(results)
    (_FOLDER / "results" / "mnist.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (_FOLDER / "results" / "mnist.md").write_text(markdown(results) + "\n", encoding="utf-8")


def _measure(
    folder: Path, accuracy_epochs: int, speed_epochs: int, repetitions: int, patience_s: float
) -> dict[str, Any]:
    """Both parts; gives what the results file holds."""
    contests = [Contest(_spec(speed_epochs, batch_size)) for batch_size in _BATCH_SIZES]
    repeat(contests, folder, repetitions, patience_s)
    for contest in contests:
        contest.check_costs()
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine.describe(),
        "accuracy": _accuracy(folder, _spec(accuracy_epochs)),
        "repetitions": repetitions,
        "steady_epochs": repetitions * (speed_epochs - 1),
        "speed": [contest.report() for contest in contests],
        "calm": [look for contest in contests for look in contest.calm],
    }
    plain: dict[str, Any] = json.loads(json.dumps(results, default=asdict))
    return plain


def _accuracy(folder: Path, spec: JobSpec) -> dict[str, Any]:
    """Trains once with an evaluation of the test images after each epoch."""
    click.echo(f"Accuracy: {spec.training.epochs} epochs …", err=True)
    with mnist_service(folder) as service:
        begun_s = time.monotonic()
        epochs = service.run(spec).epochs
        seconds = time.monotonic() - begun_s
    return {
        "seconds": seconds,
        "epochs": [{name: getattr(epoch, name) for name in _EPOCH_FIGURES} for epoch in epochs],
    }


def _check_accuracy(results: dict[str, Any]) -> None:
    reached = results["accuracy"]["epochs"][-1]["validation_accuracy"]
    if reached < _LEAST_ACCURACY:
        raise click.ClickException(
            f"At least {_LEAST_ACCURACY:.1%} of the test images should be right, but {reached:.2%} are; no results "
            "were written."
        )


def _spec(epochs: int, batch_size: int | None = None) -> JobSpec:
    """The spec of mnist.yaml; with a batch size of its own it is for the speed part, which evaluates nothing."""
    spec, violations = load(_FOLDER / "mnist.yaml")
    assert not violations, violations
    spec.training.epochs = epochs
    if batch_size:
        spec.training.batch_size = batch_size
        spec.data.validation = ""
    return complete(spec)


if __name__ == "__main__":
    main()
