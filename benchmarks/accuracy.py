"""How well the service learns: one long training with the test images evaluated after each epoch."""

import time
from pathlib import Path
from typing import Any

from benchmarks import mnist_files
from benchmarks.errors import TooFewRightError
from benchmarks.machine import Stage
from benchmarks.service_jobs import running_service
from benchmarks.works import JOB_FILE
from nablad.jobspec import complete, load

__all__ = ["EPOCHS", "LEAST", "check", "measure"]

EPOCHS = 30
LEAST = 0.975

_FIGURES = ("epoch", "training_cost", "training_accuracy", "validation_cost", "validation_accuracy")


def measure(mnist: Path, epochs: int, stage: Stage) -> dict[str, Any]:
    """Trains what mnist.yaml says on all of MNIST.

    Raises:
        JobError: The job failed.
    """
    stage.clear(f"Accuracy: {epochs} epochs")
    spec = load(JOB_FILE)
    spec.training.epochs = epochs
    sets = {spec.data.train: mnist_files.TRAIN, spec.data.validation: mnist_files.TEST}
    with running_service({name: [mnist / file for file in files] for name, files in sets.items()}) as service:
        begun_s = time.monotonic()
        run = service.run(complete(spec))
        seconds = time.monotonic() - begun_s
    return {
        "seconds": seconds,
        "epochs": [{name: getattr(epoch, name) for name in _FIGURES} for epoch in run.epochs],
    }


def check(results: dict[str, Any]) -> None:
    """Holds the last epoch against the least that is expected.

    Raises:
        TooFewRightError: It is below.
    """
    reached = results["epochs"][-1]["validation_accuracy"]
    if reached < LEAST:
        raise TooFewRightError(f"At least {LEAST:.1%} of the test images should be right, but {reached:.2%} are.")
