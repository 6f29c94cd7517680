"""Back-off: how long lost jobs wait for their next attempt, by a clock that nobody sets."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from nablad.back_off import back_off_seconds
from service.stores.jobs import Waiting

__all__ = ["BackOff", "pause_seconds"]

# A lost attempt is followed by the next one after so long, doubled with every loss.
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 60.0


def pause_seconds(lost: int) -> float:
    """Returns how long a job waits that has lost so many attempts in a row."""
    return back_off_seconds(lost, _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)


class BackOff:
    """Remembers until when the jobs of the queue wait.

    The database has the time of day at which a job may start. When the service sees it first, that becomes a time of
    the monotonic clock, at most the whole pause later: setting the time of day, also while the service is down,
    lengthens no pause.
    """

    def __init__(
        self, clock: Callable[[], float], now: Callable[[], datetime], longest: Callable[[str], float]
    ) -> None:
        """Knows of no job yet.

        Args:
            clock: Monotonic seconds.
            now: The time of day.
            longest: Seconds that a job, given by its id, waits at most.
        """
        self._clock = clock
        self._now = now
        self._longest = longest
        self._due: dict[tuple[str, float], float] = {}  # by job id and its time of day

    def held(self, waiting: Sequence[Waiting]) -> Mapping[str, float]:
        """Returns the jobs that must not start yet, with when they may, in monotonic seconds."""
        known, self._due = self._due, {}
        clock, now = self._clock(), self._now().timestamp()
        for job in waiting:
            if job.retry_time:
                pause = (job.job_id, job.retry_time)
                self._due[pause] = known[pause] if pause in known else clock + self._remaining(job, now)
        return {job_id: due for (job_id, _), due in self._due.items() if due > clock}

    def _remaining(self, job: Waiting, now: float) -> float:
        return max(min(job.retry_time - now, self._longest(job.job_id)), 0.0)
