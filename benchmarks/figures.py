"""What a measurement gives, and how several become one line of a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Self

__all__ = ["Epoch", "Spread"]


@dataclass(frozen=True)
class Epoch:
    """One epoch of a training.

    Attributes:
        cost: Mean per sample, each mini-batch before its update.
        accuracy: Share of samples classified right, likewise.
        samples_per_second: Over the time of its steps.
    """

    cost: float
    accuracy: float
    samples_per_second: float


@dataclass(frozen=True)
class Spread:
    """The middle and the ends of repeated measurements."""

    median: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Of at least one value."""
        return cls(median(values), min(values), max(values))
