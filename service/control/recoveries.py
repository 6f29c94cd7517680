"""Losses of attempts, and how long it takes until the job runs again."""

from collections.abc import Callable

from service.metrics.instruments import Instruments

__all__ = ["Recoveries"]


class Recoveries:
    """Jobs that are between two attempts."""

    def __init__(self, instruments: Instruments, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._instruments = instruments
        self._clock = clock
        self._lost: dict[str, tuple[str, float]] = {}

    def lost(self, job_id: str, cause: str, *, another_follows: bool = True) -> None:
        """An attempt was lost, and that is written down.

        If the attempt never ran, the loss before is what is recovered from.
        """
        self._instruments.attempts_lost.labels(cause).inc()
        if another_follows:
            self._lost.setdefault(job_id, (cause, self._clock()))

    def running(self, job_id: str) -> None:
        """An attempt runs."""
        if lost := self._lost.pop(job_id, None):
            cause, since = lost
            self._instruments.recovery_seconds.labels(cause).observe(self._clock() - since)

    def forget(self, job_id: str) -> None:
        """The job has ended, or waits because somebody wants it to."""
        self._lost.pop(job_id, None)
