"""Where the time of a loop goes."""

import time
from collections.abc import Callable, Sequence

__all__ = ["Stopwatch"]


class Stopwatch:
    """Counts the time between two laps as one of several activities.

    Attributes:
        seconds: By activity, in the order that they were given in.
        mark: When the last lap ended.
    """

    def __init__(self, activities: Sequence[str], clock: Callable[[], float] = time.perf_counter) -> None:
        """`clock` gives monotonic seconds."""
        self.seconds = dict.fromkeys(activities, 0.0)
        self._clock = clock
        self.mark = clock()

    def lap(self, activity: str) -> None:
        """The time since the last lap went into this activity."""
        now = self._clock()
        self.seconds[activity] += now - self.mark
        self.mark = now
