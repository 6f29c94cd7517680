"""Where a job stands, in words."""

from nablad.cli.output import number, share
from nablad.v1 import jobs_pb2


def position(progress: jobs_pb2.Progress) -> str:
    """How far the job is."""
    return f"epoch {progress.epoch}/{progress.epochs}, step {progress.step}/{progress.steps}"


def figures(progress: jobs_pb2.Progress) -> str:
    """How well and how fast it goes; what is not known yet is left out."""
    known = [
        _measure("training", progress, "training_cost", "training_accuracy"),
        _measure("validation", progress, "validation_cost", "validation_accuracy"),
        f"{progress.samples_per_second:,.0f} samples/s" if progress.samples_per_second else "",
        f"{progress.workers_alive} worker{'s' * (progress.workers_alive != 1)}" if progress.workers_alive else "",
    ]
    return ", ".join(filter(None, known))


def _measure(name: str, progress: jobs_pb2.Progress, cost: str, accuracy: str) -> str:
    """Cost and accuracy over some rows, as far as they are known."""
    known = {"cost": number(progress, cost), "accuracy": share(progress, accuracy)}
    return (
        " ".join([name, *(f"{what} {value}" for what, value in known.items() if value)]) if any(known.values()) else ""
    )
