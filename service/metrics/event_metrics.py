"""Counters and histograms of job events: a subscriber of the event publisher."""

from collections.abc import Callable

from service.events.job_events import CheckpointFailed, CheckpointWritten, JobEvent, StateChanged
from service.metrics.instruments import Instruments, priority_class
from service.stores.job_states import ENDED, PAUSED, QUEUED, RUNNING, STARTING, state_name

__all__ = ["EventMetrics"]


class EventMetrics:
    """Counts events, and measures waits in the queue and recoveries from lost attempts."""

    def __init__(self, instruments: Instruments, clock: Callable[[], float]) -> None:
        """Takes the instruments and a clock that returns monotonic seconds."""
        self._instruments = instruments
        self._clock = clock
        self._lost: dict[str, tuple[str, float]] = {}  # jobs between two attempts: cause and time of the first loss

    def receive(self, event: JobEvent) -> None:
        """Counts an event."""
        match event:
            case StateChanged():
                self._count_state(event)
                self._measure_recovery(event)
            case CheckpointWritten():
                self._instruments.checkpoints.inc()
                self._instruments.checkpoint_bytes.inc(event.checkpoint.size_bytes)
                self._instruments.checkpoint_seconds.observe(event.seconds)
            case CheckpointFailed():
                self._instruments.checkpoint_failures.inc()

    def _count_state(self, event: StateChanged) -> None:
        state = event.job.state
        if state == STARTING:
            self._instruments.attempts.inc()
            # Not negative when the time of day was set back: a sum that falls would look like a restart.
            waited = max(event.job.update_time.ToNanoseconds() - event.previous.update_time.ToNanoseconds(), 0) / 1e9
            self._instruments.queue_wait_seconds.labels(priority_class(event.job.spec.priority)).observe(waited)
        if event.lost_cause:
            self._instruments.attempts_lost.labels(event.lost_cause).inc()
            if state == PAUSED:
                self._instruments.jobs_set_aside.inc()
        if state in ENDED:
            self._instruments.jobs_ended.labels(state_name(state)).inc()

    def _measure_recovery(self, event: StateChanged) -> None:
        """Measures from the loss of an attempt until the next one runs.

        An attempt that is lost before it runs belongs to the recovery from the loss before. A job that ends or is
        paused in between does not recover.
        """
        state, job_id = event.job.state, event.job_id
        if state in ENDED or state == PAUSED:
            self._lost.pop(job_id, None)
        elif event.lost_cause and state == QUEUED:
            self._lost.setdefault(job_id, (event.lost_cause, self._clock()))
        elif state == RUNNING and (lost := self._lost.pop(job_id, None)):
            cause, since = lost
            self._instruments.recovery_seconds.labels(cause).observe(self._clock() - since)
