"""Statistics of a process: what its time goes into, and what CPU time and memory it uses."""

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["Stopwatch", "Usage", "UsageMeter", "own_usage"]

_READ_SECONDS: Final = 1.0
_STATM: Final = Path("/proc/self/statm")


class Stopwatch:
    """Counts the time between two laps as one of several activities.

    Attributes:
        seconds: Seconds by activity, in the order in which the activities were given.
        mark: Time of the last lap, by the clock.
    """

    def __init__(self, activities: Sequence[str], clock: Callable[[], float] = time.perf_counter) -> None:
        """Starts; `clock` gives monotonic seconds."""
        self.seconds = dict.fromkeys(activities, 0.0)
        self._clock = clock
        self.mark = clock()

    def add_seconds(self, seconds: Mapping[str, float], mark: float) -> None:
        """Adds seconds by activity that were measured in another way, until a time by the same clock."""
        for activity, spent in seconds.items():
            self.seconds[activity] += spent
        self.mark = mark

    def lap(self, activity: str) -> None:
        """Counts the time since the last lap as this activity."""
        now = self._clock()
        self.seconds[activity] += now - self.mark
        self.mark = now


class Usage(NamedTuple):
    """Resources that one process uses."""

    cpu_seconds: float
    """CPU seconds of all its threads since it began."""
    resident_memory_bytes: float
    """Resident memory at present."""


def own_usage() -> Usage:
    """Returns what this process uses."""
    resident_pages = int(_STATM.read_text(encoding="ascii").split()[1])
    return Usage(time.process_time(), resident_pages * resource.getpagesize())


class UsageMeter:
    """Caches what this process uses: measures no more than once a second, however often it is read."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, measure: Callable[[], Usage] = own_usage) -> None:
        """Measures nothing yet; `clock` gives monotonic seconds."""
        self._clock = clock
        self._measure = measure
        self._next_measurement = clock()
        self._usage = Usage(0.0, 0.0)

    def read(self) -> Usage:
        """Returns the last measurement, at most a second old."""
        now = self._clock()
        if now >= self._next_measurement:
            self._next_measurement = now + _READ_SECONDS
            self._usage = self._measure()
        return self._usage
