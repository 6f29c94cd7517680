"""The signals that tell the service to end, told apart by when they come."""

from collections.abc import Callable
from enum import Enum, auto
from typing import Final

__all__ = ["StopOrder", "StopSignals"]

# Wrappers send a signal to the process and to its group, or pass on what the terminal has sent to both already: several
# within a millisecond mean one. A person needs longer than this to lose patience.
_SAME_SECONDS: Final = 1.0


class StopOrder(Enum):
    """The meaning of one signal."""

    IN_ORDER = auto()
    """End in order."""
    REPEATED = auto()
    """Nothing: it is the one before once more."""
    AT_ONCE = auto()
    """End at once."""


class StopSignals:
    """Says of each signal what it asks for."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds that only grow."""
        self._clock = clock
        self._first: float | None = None

    def order(self) -> StopOrder:
        """Returns what the signal that has just come asks for.

        One that comes within a second of the first counts as the first; any later one is meant as it is sent.
        """
        now = self._clock()
        if self._first is None:
            self._first = now
            return StopOrder.IN_ORDER
        return StopOrder.REPEATED if now - self._first < _SAME_SECONDS else StopOrder.AT_ONCE
