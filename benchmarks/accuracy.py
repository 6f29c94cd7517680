"""Accuracy of the service: one long training with the test images evaluated after each epoch."""

import time
from pathlib import Path
from typing import Any

from benchmarks import mnist_files
from benchmarks.errors import TooFewRightError
from benchmarks.machine import Stage
from benchmarks.service_jobs import running_service
from benchmarks.works import JOB_FILE
from nablad.jobspec import complete, load
from nablad.learning_metrics import LEARNING_METRICS, ROW_SETS
from nablad.v1 import jobs_pb2

__all__ = ["EPOCHS", "LEAST", "check", "measure"]

EPOCHS = 30
LEAST = 0.975


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
        "epochs": [_known(epoch) for epoch in run.epochs],
    }


def _known(epoch: jobs_pb2.Progress) -> dict[str, Any]:
    metrics = {
        f"{rows}_{metric.name}": metric.value(getattr(epoch, rows)) for rows in ROW_SETS for metric in LEARNING_METRICS
    }
    return {"epoch": epoch.epoch, **metrics}


def check(results: dict[str, Any]) -> None:
    """Checks the accuracy of the last epoch.

    Raises:
        TooFewRightError: It is below the expected one.
    """
    reached = results["epochs"][-1]["validation_accuracy"]
    if reached < LEAST:
        raise TooFewRightError(f"Expected a test accuracy of at least {LEAST:.1%}, got {reached:.2%}.")
