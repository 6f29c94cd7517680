"""Sums over samples, and the metrics of learning that follow from them.

Sums of the parts of a mini-batch, of an epoch or of all validation rows can be added, metrics cannot: workers report
sums, and whoever shows a metric asks the sums of all its samples for it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["SampleSums"]


@dataclass(slots=True)
class SampleSums:
    """Sums over samples: floats are of numbers, ints are counts.

    Every metric of learning is a property, under the name that it has in `nablad.learning_metrics`; it is None where it
    is not defined, as without samples.

    Attributes:
        cost_sum: Of the cost function over samples and output nodes, and of the inner terms; added in float64.
        samples: How many samples there are.
        correct_count: How many were classified right; 0 when the targets are values.
    """

    cost_sum: float = 0.0
    samples: int = 0
    correct_count: int = 0

    @property
    def cost(self) -> float | None:
        """Mean cost per sample."""
        return self.cost_sum / self.samples if self.samples else None

    @property
    def accuracy(self) -> float | None:
        """Share of samples classified right."""
        return self.correct_count / self.samples if self.samples else None

    def add_sums(self, other: "SampleSums") -> None:
        """Adds those of other samples to these."""
        # Field by field, for speed: this happens at every step.
        self.cost_sum += other.cost_sum
        self.samples += other.samples
        self.correct_count += other.correct_count

    @classmethod
    def total(cls, parts: Iterable["SampleSums"]) -> "SampleSums":
        """The sums over the samples of all parts, added in their order."""
        total = cls()
        for part in parts:
            total.add_sums(part)
        return total

    def can_be_of(self, samples: int) -> bool:
        """Whether they are of so many samples, and count no more than those."""
        return self.correct_count <= self.samples == samples
