"""Whether all contestants did the same work: their costs say it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.errors import CostsDisagreeError

__all__ = ["Tolerance", "check_costs", "largest_difference"]


@dataclass(frozen=True)
class Tolerance:
    """How far a cost may be from that of the reference.

    Attributes:
        relative: To the reference.
        absolute: On top of that.
    """

    relative: float
    absolute: float = 0.0

    def allows(self, cost: float, reference: float) -> bool:
        """Whether the cost is near enough."""
        return abs(cost - reference) <= self.relative * abs(reference) + self.absolute


def largest_difference(runs: Iterable[Sequence[float]], reference: Sequence[float]) -> float:
    """Of the costs of all epochs of all runs, relative to the reference."""
    return max(abs(cost / expected - 1) for costs in runs for cost, expected in zip(costs, reference, strict=True))


def check_costs(who: str, runs: Iterable[Sequence[float]], reference: Sequence[float], tolerance: Tolerance) -> None:
    """Holds every epoch of every run against the reference.

    Raises:
        CostsDisagreeError: One of them is too far from it.
    """
    for costs in runs:
        if len(costs) != len(reference):
            raise CostsDisagreeError(f"{who}: there should be {len(reference)} epochs, but are {len(costs)}.")
        for epoch, (cost, expected) in enumerate(zip(costs, reference, strict=True), start=1):
            if not tolerance.allows(cost, expected):
                raise CostsDisagreeError(
                    f"{who}: the training cost of epoch {epoch} should be {expected:.8g} to {tolerance.relative:g} of "
                    f"its size, but is {cost:.8g}. This is not the same work, so there is nothing to compare."
                )
