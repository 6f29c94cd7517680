"""Figures of a measurement, and the spread of several as one line of a table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Self

__all__ = ["Measurement", "Spread", "steady"]


@dataclass(frozen=True)
class Measurement:
    """One run of a contestant.

    Attributes:
        samples_per_second: Of each epoch, over the time of its steps.
        costs: Of each epoch, the mean per sample, each mini-batch before its update; none of a limit, which trains
            nothing.
    """

    samples_per_second: list[float]
    costs: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Spread:
    """The middle and the ends of repeated measurements."""

    median: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Returns the spread of at least one value."""
        return cls(median(values), min(values), max(values))


def steady(runs: Iterable[Measurement]) -> Spread:
    """Samples per second over the epochs of all runs but the first of each, which warms up."""
    return Spread.of([speed for run in runs for speed in run.samples_per_second[1:]])
