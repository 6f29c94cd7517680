"""Live status of jobs: what is known beyond the database, and notifications of every change."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.events.job_events import (
    AttemptResumed,
    CheckpointFailed,
    CheckpointWritten,
    EndUnwritten,
    JobDeleted,
    JobEvent,
    ProgressReported,
    StateChanged,
    WaitingExplained,
    WorkersChanged,
)
from service.stores.job_states import ACTIVE, ENDED, PAUSED, QUEUED, STARTING

__all__ = ["JobStatus", "LiveStatus"]

# Time that a job's series stay after its end, so that Prometheus scrapes the last values.
_RETENTION_SECONDS = 900.0


@dataclass
class JobStatus:
    """Live status of a job's present attempt.

    Attributes:
        progress: The newest progress that the parameter server reported.
        statistics: The newest statistics of the attempt, up to 1.5 s older than the progress until the job ends.
        attempt: Number of the attempt.
        workers: Number of workers that the job asks for.
        checkpoints: Number of checkpoints written in this attempt.
        checkpoint_failures: Number of checkpoints that could not be written in this attempt.
        checkpoint_step: Step of the newest checkpoint; None before the first one of the job.
        checkpoint_time: Time of the newest checkpoint, or of the attempt's start if that was later, in Unix seconds.
        checkpoint_interval: Longest time between two checkpoints by the job's spec, in seconds.
        begun_at: Step and samples where the attempt began; None until its first progress.
        ended: Time when the job ended, in seconds of the clock; None before.
    """

    progress: jobs_pb.Progress = field(default_factory=jobs_pb.Progress)
    statistics: ps_pb.AttemptStatistics = field(default_factory=ps_pb.AttemptStatistics)
    attempt: int = 1
    workers: int = 1
    checkpoints: int = 0
    checkpoint_failures: int = 0
    checkpoint_step: int | None = None
    checkpoint_time: float | None = None
    checkpoint_interval: float | None = None
    begun_at: tuple[int, int] | None = None
    ended: float | None = None

    @property
    def steps_made(self) -> int:
        """Updates of the weights in this attempt."""
        return self.progress.step - self.begun_at[0] if self.begun_at else 0

    @property
    def samples_made(self) -> int:
        """Samples of these updates."""
        return self.progress.samples - self.begun_at[1] if self.begun_at else 0

    @property
    def running(self) -> bool:
        """True while the job has not ended."""
        return self.ended is None


class _ChangeNotifications:
    """Change notifications by job id. Each is set once; whoever asks for the next one later gets a new one."""

    def __init__(self) -> None:
        # A notification stays here as long as a task waits for it.
        self._waited_for: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()

    def next(self, job_id: str) -> asyncio.Event:
        if (notification := self._waited_for.get(job_id)) is None:
            notification = self._waited_for[job_id] = asyncio.Event()
        return notification

    def notify(self, job_id: str) -> None:
        if notification := self._waited_for.pop(job_id, None):
            notification.set()

    def notify_all(self) -> None:
        for job_id in list(self._waited_for):
            self.notify(job_id)


class LiveStatus:
    """Live status of all jobs that run or ended recently, and why others wait: a subscriber of events."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` returns monotonic seconds."""
        self._clock = clock
        self._jobs: dict[str, JobStatus] = {}
        self._waiting_reasons: dict[str, str] = {}
        self._unwritten_ends: dict[str, str] = {}
        self._changes = _ChangeNotifications()
        self._ends = _ChangeNotifications()

    def receive(self, event: JobEvent) -> None:
        """Updates the status of the event's job, and notifies all tasks that wait for a change of it."""
        job_id = event.job_id
        match event:
            case StateChanged():
                self._enter_state(event.job)
            case JobDeleted():
                self._forget(job_id)
            case ProgressReported():
                self._update_progress(event)
            case WaitingExplained():
                if self._waiting_reasons.get(job_id) == event.reason:
                    return  # nothing new
                self._waiting_reasons[job_id] = event.reason
            case EndUnwritten():
                self._unwritten_ends[job_id] = event.reason
            case WorkersChanged():
                self._waiting_reasons[job_id] = ""  # the old reason may not hold any more
        if status := self._jobs.get(job_id):
            _update(status, event)
        self._changes.notify(job_id)

    def waiting_reason(self, job_id: str) -> str:
        """Returns why a queued job still waits, as a sentence; empty if no more is known than the job's own reason."""
        return self._waiting_reasons.get(job_id, "")

    def progress(self, job_id: str) -> jobs_pb.Progress | None:
        """Returns the newest progress of a job, if any is known."""
        status = self._jobs.get(job_id)
        return status.progress if status else None

    def add_live_status(self, job: jobs_pb.Job) -> jobs_pb.Job:
        """Sets the newest progress in a job's message, and its waiting reason or unwritten end; returns the message.

        A job that has ended keeps the metrics of its last epoch.
        """
        if job.state not in ENDED and (progress := self.progress(job.job_id)):
            job.progress.CopyFrom(progress)
        if job.state == QUEUED:
            job.reason = self.waiting_reason(job.job_id) or job.reason
        elif job.state in ACTIVE:
            job.reason = self._unwritten_ends.get(job.job_id, job.reason)
        return job

    def snapshot(self) -> Mapping[str, JobStatus]:
        """Returns the status of all jobs by job id, without jobs that ended long ago."""
        self._drop_old()
        return dict(self._jobs)

    def next_change(self, job_id: str) -> asyncio.Event:
        """Returns a notification that is set at the job's next event. Request it before reading the job."""
        return self._changes.next(job_id)

    def next_end(self, job_id: str) -> asyncio.Event:
        """Returns a notification that is set when the job ends next."""
        return self._ends.next(job_id)

    def notify_all(self) -> None:
        """Wakes all tasks that wait for a change of any job."""
        self._changes.notify_all()
        self._ends.notify_all()

    def _enter_state(self, job: jobs_pb.Job) -> None:
        if job.state == STARTING:
            self._unwritten_ends.pop(job.job_id, None)
            self._jobs[job.job_id] = _first_status(job)
        elif job.state in (QUEUED, PAUSED):
            # The status of the last attempt does not hold any more.
            self._forget(job.job_id)
        elif job.state in ENDED:
            self._end(job.job_id)

    def _end(self, job_id: str) -> None:
        """Keeps the status of an ended job for a while. Gauges go to zero, totals stay."""
        self._drop_old()
        self._waiting_reasons.pop(job_id, None)
        self._unwritten_ends.pop(job_id, None)
        if status := self._jobs.get(job_id):
            status.ended = self._clock()
            status.progress, status.statistics = _at_rest(status)
        self._ends.notify(job_id)

    def _forget(self, job_id: str) -> None:
        self._jobs.pop(job_id, None)
        self._waiting_reasons.pop(job_id, None)
        self._unwritten_ends.pop(job_id, None)

    def _update_progress(self, event: ProgressReported) -> None:
        status = self._jobs.setdefault(event.job_id, JobStatus())
        status.progress = event.progress
        if event.statistics is not None:
            status.statistics = event.statistics
        if status.begun_at is None:
            # A later attempt goes on from a checkpoint; its first progress comes soon after.
            first = status.attempt == 1
            status.begun_at = (0, 0) if first else (event.progress.step, event.progress.samples)

    def _drop_old(self) -> None:
        oldest = self._clock() - _RETENTION_SECONDS
        self._jobs = {
            job_id: status for job_id, status in self._jobs.items() if status.ended is None or status.ended > oldest
        }


def _first_status(job: jobs_pb.Job) -> JobStatus:
    """Returns the status of a job whose attempt begins."""
    progress = jobs_pb.Progress()
    progress.CopyFrom(job.progress)
    progress.workers_alive, progress.samples_per_second = 0, 0
    return JobStatus(
        progress,
        attempt=job.attempt,
        workers=job.spec.distribution.workers,
        checkpoint_time=job.update_time.ToNanoseconds() / 1e9,
        checkpoint_interval=job.spec.checkpoints.every_seconds,
    )


def _update(status: JobStatus, event: JobEvent) -> None:
    """Updates the status of a job with processes by an event."""
    match event:
        case WorkersChanged():
            status.workers = event.workers
        case AttemptResumed():
            status.checkpoint_step = event.step
        case CheckpointWritten():
            status.checkpoints += 1
            status.checkpoint_step, status.checkpoint_time = event.checkpoint.step, event.time
        case CheckpointFailed():
            status.checkpoint_failures += 1


def _at_rest(status: JobStatus) -> tuple[jobs_pb.Progress, ps_pb.AttemptStatistics]:
    """Returns copies of progress and statistics without gauges of processes; readers may still hold the originals."""
    progress, statistics = jobs_pb.Progress(), ps_pb.AttemptStatistics()
    progress.CopyFrom(status.progress)
    statistics.CopyFrom(status.statistics)
    progress.workers_alive, progress.samples_per_second = 0, 0
    statistics.transport_workers.clear()
    statistics.staleness = 0
    for part in (statistics, *statistics.workers):
        part.ClearField("process")
    return progress, statistics
