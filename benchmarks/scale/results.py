"""Everything that one run measured, checked and predicted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from benchmarks.scale.check import Checked
from benchmarks.scale.forms import Form
from benchmarks.scale.prediction import (
    SIZES,
    Limit,
    Simulated,
    Strong,
    fixed_batch,
    limits,
    links,
    most_workers,
    simulated,
)
from benchmarks.scale.quantities import Parts

__all__ = ["SAMPLES_TRIED", "Predictions", "Results"]

SAMPLES_TRIED = (64, 256, 1024, 4096)


@dataclass(frozen=True)
class Predictions:
    """What the model says, by the name of the link.

    Attributes:
        weak: With a fixed number of samples for each worker, for each size.
        strong: With a mini-batch of a fixed size, for each size.
        most_workers: That compute for half of their time, by samples of each worker, for each size.
        simulated: The formulas beside the simulation.
    """

    weak: Mapping[str, Sequence[Limit]]
    strong: Mapping[str, Sequence[Strong]]
    most_workers: Mapping[str, Mapping[int, Sequence[int]]]
    simulated: Mapping[str, Sequence[Simulated]]

    @classmethod
    def of(cls, parts: Parts) -> Self:
        """From the parts."""
        forms = [Form.of_size(size) for size in SIZES]
        return cls(
            {link.name: limits(parts, link) for link in links(parts)},
            {link.name: fixed_batch(parts, link) for link in links(parts)},
            {
                link.name: {n: [most_workers(form, n, parts, link) for form in forms] for n in SAMPLES_TRIED}
                for link in links(parts)
            },
            {link.name: simulated(parts, link) for link in links(parts)},
        )


@dataclass(frozen=True)
class Results:
    """Of one run.

    Attributes:
        date: Of the measurements.
        machine: That they were made on, in words.
        others_cpus: How many CPUs others had in use meanwhile, for each measurement.
        parts: As they were measured.
        checked: Predicted steps beside measured ones.
        predictions: For what was not measured.
    """

    date: str
    machine: Mapping[str, str]
    others_cpus: Sequence[float]
    parts: Parts
    checked: Sequence[Checked]
    predictions: Predictions
