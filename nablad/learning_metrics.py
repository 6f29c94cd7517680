"""The metrics of learning, one row for each: tables, series, boards and stopping rules take them from here.

Each row has a field of the same name in `nablad.v1.Metrics`, and a property in `workers.mathematics.sums.Sums`, which
has the formula.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nablad.v1 import metrics_pb2

__all__ = ["LEARNING_METRICS", "ROW_SETS", "LearningMetric"]

ROW_SETS: Final = ("training", "validation")
"""The rows that metrics are of; the fields of messages that carry them."""


@dataclass(frozen=True)
class LearningMetric:
    """A row of the table.

    Attributes:
        name: Of the field, in headings and in sentences.
        help: What it is, as the beginning of a sentence that goes on with the rows it is of.
        lower_is_better: Whether a lower value is a better one, else a higher one is.
        only_for_labels: Whether it needs class labels; else values will do, too.
        is_share: Whether it is a share of 1, which people read as a percentage.
    """

    name: str
    help: str
    lower_is_better: bool = False
    only_for_labels: bool = False
    is_share: bool = False

    def value(self, metrics: "metrics_pb2.Metrics") -> float | None:
        """Its value among others; None if it is not known."""
        known = metrics.HasField(self.name)  # type: ignore[arg-type]
        return float(getattr(metrics, self.name)) if known else None

    def text(self, value: float, digits: int = 4) -> str:
        """A value for people: a percentage, or a number with so many significant digits."""
        return f"{value:.2%}" if self.is_share else f"{value:.{digits}g}"

    def reaches(self, value: float, target: float) -> bool:
        """Whether a value is as good as the target."""
        return value <= target if self.lower_is_better else value >= target


LEARNING_METRICS: Final = (
    LearningMetric("cost", "Mean cost per sample", lower_is_better=True),
    LearningMetric("accuracy", "Share of samples classified right", only_for_labels=True, is_share=True),
)
