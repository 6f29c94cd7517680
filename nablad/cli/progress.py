"""Where a job stands, in words."""

from nablad.learning_metrics import LEARNING_METRICS, ROW_SETS
from nablad.v1 import jobs_pb2


def position(progress: jobs_pb2.Progress) -> str:
    """How far the job is."""
    return f"epoch {progress.epoch}/{progress.epochs}, step {progress.step}/{progress.steps}"


def performance(progress: jobs_pb2.Progress) -> str:
    """Returns how well and how fast it goes, in the words of the tables; what is not known yet is left out."""
    known = [
        *(
            f"{rows} {metric.name} {metric.text(value)}"
            for rows in ROW_SETS
            for metric in LEARNING_METRICS
            if (value := metric.value(getattr(progress, rows))) is not None
        ),
        f"{progress.samples_per_second:,.0f} samples/s" if progress.samples_per_second else "",
        f"{progress.workers_alive} worker{'s' * (progress.workers_alive != 1)}" if progress.workers_alive else "",
    ]
    return ", ".join(filter(None, known))


def progress_line(progress: jobs_pb2.Progress) -> str:
    """Returns one line: how far the job is, how well and how fast it goes."""
    return ": ".join(filter(None, (position(progress), performance(progress))))
