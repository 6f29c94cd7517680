"""Sums over samples, and the metrics of learning that follow from them.

Sums of the parts of a mini-batch, of an epoch or of all validation rows can be added, metrics cannot. Therefore workers
report sums, and a metric is computed from the sums of all its samples.
"""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["SampleSums"]


@dataclass(slots=True)
class SampleSums:
    """Sums over samples: floats are of numbers, ints are counts.

    Every metric of learning is a property, under its name in `nablad.learning_metrics`; None where it is not defined,
    for example without samples.

    Attributes:
        cost_sum: Sum of the cost over samples and output nodes, and of the inner terms; added in float64.
        samples: Number of samples.
        correct_count: Number of samples classified correctly; 0 if the targets are values.
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
        """Share of samples classified correctly."""
        return self.correct_count / self.samples if self.samples else None

    def add_sums(self, other: "SampleSums") -> None:
        """Adds the sums over other samples to these."""
        # Field by field, for speed: called at every step.
        self.cost_sum += other.cost_sum
        self.samples += other.samples
        self.correct_count += other.correct_count

    @classmethod
    def total(cls, parts: Iterable["SampleSums"]) -> "SampleSums":
        """Returns the sums over the samples of all parts, added in the order of the parts."""
        total = cls()
        for part in parts:
            total.add_sums(part)
        return total

    def can_be_of(self, samples: int) -> bool:
        """Returns True if the sums are over that number of samples, and no count exceeds it."""
        return self.correct_count <= self.samples == samples
