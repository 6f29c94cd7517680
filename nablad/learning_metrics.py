"""Table of the metrics of learning, the source for tables, series, boards and stopping rules.

Each row has a field of the same name in `nablad.v1.Metrics`, and a property in `workers.mathematics.sums.SampleSums`,
which has the formula.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nablad.v1 import metrics_pb2

__all__ = ["LEARNING_METRICS", "ROW_SETS", "LearningMetric"]

ROW_SETS: Final = ("training", "validation")
"""Sets of rows that have metrics, named as the fields of messages that carry them."""


@dataclass(frozen=True)
class LearningMetric:
    """Row of the table.

    Attributes:
        name: Name of the field, also used in headings and sentences.
        help: Beginning of a sentence that continues with the set of rows.
        lower_is_better: True if a lower value is better.
        only_for_labels: True if the metric needs class labels.
        is_share: True for a share from 0 to 1, shown as a percentage.
    """

    name: str
    help: str
    lower_is_better: bool = False
    only_for_labels: bool = False
    is_share: bool = False

    def value(self, metrics: "metrics_pb2.Metrics") -> float | None:
        """Returns this metric's value in a message; None if it is not known."""
        known = metrics.HasField(self.name)  # type: ignore[arg-type]
        return float(getattr(metrics, self.name)) if known else None

    def text(self, value: float, digits: int = 4) -> str:
        """Returns a value as text: a percentage with two decimals, or a number with `digits` significant digits."""
        return f"{value:.2%}" if self.is_share else f"{value:.{digits}g}"

    def reaches(self, value: float, target: float) -> bool:
        """Returns True if a value is at least as good as the target."""
        return value <= target if self.lower_is_better else value >= target


LEARNING_METRICS: Final = (
    LearningMetric("cost", "Mean cost per sample", lower_is_better=True),
    LearningMetric("accuracy", "Share of samples classified correctly", only_for_labels=True, is_share=True),
)
