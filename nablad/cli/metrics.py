"""Metrics of learning and the progress of a job, as cells of tables and as a line of text."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from nablad.learning_metrics import LEARNING_METRICS, ROW_SETS, LearningMetric

if TYPE_CHECKING:
    from nablad.v1 import jobs_pb2, metrics_pb2

Measure: TypeAlias = tuple[str, LearningMetric]
"""Set of rows, one of `ROW_SETS`, and a metric over them."""

MEASURES: Final[tuple[Measure, ...]] = tuple((rows, metric) for metric in LEARNING_METRICS for rows in ROW_SETS)
"""All measures in the order of the tables: costs beside costs."""


class Measured(Protocol):
    """Message with metrics of learning."""

    @property
    def training(self) -> "metrics_pb2.Metrics":
        """Metrics over training rows."""

    @property
    def validation(self) -> "metrics_pb2.Metrics":
        """Metrics over validation rows."""


def headings(measures: Iterable[Measure]) -> list[str]:
    """Returns the headings of the measures' columns."""
    return [f"{rows} {metric.name}".upper() for rows, metric in measures]


def cells(message: Measured, measures: Iterable[Measure]) -> list[str]:
    """Returns the measures in a message as text; empty where a value is not known."""
    values = ((metric, metric.value(getattr(message, rows))) for rows, metric in measures)
    return ["" if value is None else metric.text(value) for metric, value in values]


def position(progress: "jobs_pb2.Progress") -> str:
    """Returns how far a job is, in epochs and steps."""
    return f"epoch {progress.epoch}/{progress.epochs}, step {progress.step}/{progress.steps}"


def performance(progress: "jobs_pb2.Progress") -> str:
    """Returns metrics, speed and workers of a job, with the names of the tables; leaves out what is not known."""
    known = [
        *(
            f"{rows} {metric.name} {metric.text(value)}"
            for rows in ROW_SETS
            for metric in LEARNING_METRICS
            if (value := metric.value(getattr(progress, rows))) is not None
        ),
        f"{progress.samples_per_second:,.0f} samples/s" if progress.samples_per_second else "",
        f"{progress.workers_alive} worker{'s' * (progress.workers_alive != 1)}" if progress.workers_alive else "",
        f"{progress.dropped_micro_batches:,} micro-batches dropped" if progress.dropped_micro_batches else "",
    ]
    return ", ".join(filter(None, known))


def progress_line(progress: "jobs_pb2.Progress") -> str:
    """Returns position and performance of a job in one line."""
    return ": ".join(filter(None, (position(progress), performance(progress))))
