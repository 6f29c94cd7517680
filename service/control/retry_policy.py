"""Retry policy: whether a job whose attempt was lost gets another attempt, and how long it waits for it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from nablad.back_off import back_off_seconds
from nablad.v1 import jobs_pb2 as jobs_pb
from service.errors import AttemptLost
from service.stores.job_states import FAILED, QUEUED, State
from service.stores.jobs import QueuedJob

__all__ = ["RetryDecision", "RetryDelays", "decide_retry", "retry_delay_seconds"]

# Delay of the next attempt after the first loss, in seconds. It doubles with every loss.
_FIRST_DELAY_SECONDS: Final = 1.0
_LONGEST_DELAY_SECONDS: Final = 60.0
# Ray's end is not a job's fault. But if it comes so often before any headway, a job that runs there may be the cause.
_MAX_LOST_WITH_RAY: Final = 20


@dataclass(frozen=True)
class RetryDecision:
    """Decision on a job whose attempt was lost.

    Attributes:
        state: QUEUED for another attempt, FAILED if the job is given up.
        reason: Why, as a sentence.
        changes: Fields of the job that change with its state.
    """

    state: State
    reason: str
    changes: Mapping[str, Any]


def decide_retry(job: jobs_pb.Job, loss: AttemptLost, now: datetime) -> RetryDecision:
    """Decides that another attempt follows, unless too many in a row were lost without any headway.

    Args:
        job: The job, before the loss is counted.
        loss: The loss.
        now: The time of day.
    """
    with_ray = loss.cause == "ray"
    lost = (job.lost_with_ray if with_ray else job.lost_attempts) + 1
    limit = _MAX_LOST_WITH_RAY if with_ray else job.spec.limits.attempts
    changes: dict[str, Any] = {
        "lost_with_ray" if with_ray else "lost_attempts": lost,
        "last_error_lines": loss.error_lines,
    }
    if lost >= limit:
        changes["failure_kind"] = jobs_pb.FAILURE_KIND_LOST
        return RetryDecision(FAILED, _given_up(job, str(loss), lost, with_ray=with_ray), changes)
    delay = retry_delay_seconds(lost)
    retry_time = Timestamp()
    retry_time.FromDatetime(now + timedelta(seconds=delay))
    reason = f"{loss}; attempt {job.attempt + 1} follows in {delay:.0f} s"
    return RetryDecision(QUEUED, reason, {**changes, "retry_time": retry_time})


def retry_delay_seconds(lost: int) -> float:
    """Returns the delay of the next attempt after `lost` lost attempts in a row, in seconds."""
    return back_off_seconds(lost, _FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS)


class RetryDelays:
    """Delays of the jobs in the queue, measured by the monotonic clock.

    The database has the time of day at which a job may start. When the service first reads it, it becomes a time of the
    monotonic clock, at most the whole delay later. So setting the time of day lengthens no delay, not even while the
    service is down.
    """

    def __init__(
        self, clock: Callable[[], float], now: Callable[[], datetime], longest: Callable[[str], float]
    ) -> None:
        """Knows no job yet.

        Args:
            clock: Monotonic seconds.
            now: The time of day.
            longest: Longest possible delay of a job, given by its id, in seconds.
        """
        self._clock = clock
        self._now = now
        self._longest = longest
        self._due: dict[tuple[str, float], float] = {}  # by job id and its time of day

    def delayed_jobs(self, queued: Sequence[QueuedJob]) -> Mapping[str, float]:
        """Returns the ids of the jobs that must not start yet, each with its start time in monotonic seconds."""
        known, self._due = self._due, {}
        clock, now = self._clock(), self._now().timestamp()
        for job in queued:
            if job.retry_time:
                key = (job.job_id, job.retry_time)
                self._due[key] = known[key] if key in known else clock + self._remaining_seconds(job, now)
        return {job_id: due for (job_id, _), due in self._due.items() if due > clock}

    def _remaining_seconds(self, job: QueuedJob, now: float) -> float:
        return max(min(job.retry_time - now, self._longest(job.job_id)), 0.0)


def _given_up(job: jobs_pb.Job, cause: str, lost: int, *, with_ray: bool) -> str:
    times = "one attempt was" if lost == 1 else f"{lost} attempts in a row were"
    look = (
        "it, or another job beside it, may take Ray along each time, by needing more memory than a node has"
        if with_ray
        else f"`nabla job get {job.job_id}` shows the last lines of what failed"
    )
    return (
        f"{cause}; given up after {times} lost without a newer checkpoint: {look}, and "
        f"`nabla job retry {job.job_id}` tries again"
    )
