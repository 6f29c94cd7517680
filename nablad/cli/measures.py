"""Metrics of learning in the tables of `nabla`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from nablad.learning_metrics import LEARNING_METRICS, ROW_SETS, LearningMetric

if TYPE_CHECKING:
    from nablad.v1 import metrics_pb2

Measure: TypeAlias = tuple[str, LearningMetric]
"""A metric, and the rows that it is of, one of `ROW_SETS`."""

MEASURES: Final[tuple[Measure, ...]] = tuple((rows, metric) for metric in LEARNING_METRICS for rows in ROW_SETS)
"""All of them in the order of the tables: costs beside costs."""


class Measured(Protocol):
    """A message with metrics."""

    @property
    def training(self) -> "metrics_pb2.Metrics":
        """Over rows that are trained with."""

    @property
    def validation(self) -> "metrics_pb2.Metrics":
        """Over rows that are kept apart."""


def headings(measures: Iterable[Measure]) -> list[str]:
    """The headings of their columns."""
    return [f"{rows} {metric.name}".upper() for rows, metric in measures]


def cells(message: Measured, measures: Iterable[Measure]) -> list[str]:
    """What a message says of them; empty where it is not known."""
    values = ((metric, metric.value(getattr(message, rows))) for rows, metric in measures)
    return ["" if value is None else metric.text(value) for metric, value in values]
