"""What can be done to a job, as a row of the table."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.robustness.run import Run

__all__ = ["Scenario"]


@dataclass(frozen=True)
class Scenario:
    """A fault, or a call that must not change the result either.

    Attributes:
        name: For the command line and the table.
        fault: In words.
        disturb: Submits the run's job and does it.
        stall_limit_s: The longest time without a step that may come of it.
        spares_others: Whether other jobs must not notice.
        needs_notice: Whether an event must tell of it that is there for nothing else.
    """

    name: str
    fault: str
    disturb: Callable[[Run], None]
    stall_limit_s: float
    spares_others: bool = True
    needs_notice: bool = False
