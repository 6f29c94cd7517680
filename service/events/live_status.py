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
from service.stores.job_states import ENDED, LAUNCHED, PAUSED, QUEUED, STARTING

__all__ = ["JobStatus", "LiveStatus"]

# The series of a job stay this long after its end, for Prometheus to scrape the last figures.
_RETENTION_SECONDS = 900.0


@dataclass
class JobStatus:
    """The newest figures of a job's present attempt.

    Attributes:
        progress: As the parameter server told it.
        telemetry: As the parameter server told it; up to a second and a half older, unless the job has come to its end.
        attempt: Its number.
        workers: How many the job asks for.
        checkpoints: Written in this attempt.
        checkpoint_failures: That could not be written in this attempt.
        checkpoint_step: Of the newest checkpoint; None before the first one of the job.
        checkpoint_time: When it was written, or the attempt began if that was later, in Unix seconds.
        checkpoint_interval: How often the job wants one by time, in seconds.
        begun_at: Step and samples where the attempt began; None until it is heard of.
        ended: When the job ended, in seconds of the clock.
    """

    progress: jobs_pb.Progress = field(default_factory=jobs_pb.Progress)
    telemetry: ps_pb.Telemetry = field(default_factory=ps_pb.Telemetry)
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
        """Samples that went into them."""
        return self.progress.samples - self.begun_at[1] if self.begun_at else 0

    @property
    def running(self) -> bool:
        """Whether the job has not ended."""
        return self.ended is None


class _ChangeNotifications:
    """Notifications by job id, each for those who wait now; those who ask after it was given get another one."""

    def __init__(self) -> None:
        # A notification is here as long as somebody waits for it.
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
    """The figures of all jobs that run or have ended a short time ago, and why others wait: a subscriber of events."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._clock = clock
        self._jobs: dict[str, JobStatus] = {}
        self._waiting_reasons: dict[str, str] = {}
        self._unwritten_ends: dict[str, str] = {}
        self._changes = _ChangeNotifications()
        self._ends = _ChangeNotifications()

    def receive(self, event: JobEvent) -> None:
        """Updates the status of the event's job, and notifies those who wait for a change of it."""
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
                self._waiting_reasons[job_id] = ""  # what the job waited for before, it may wait for no more
        if status := self._jobs.get(job_id):
            _update(status, event)
        self._changes.notify(job_id)

    def waiting_reason(self, job_id: str) -> str:
        """Returns why a queued job still waits, as a sentence; empty if no more is known than its reason says."""
        return self._waiting_reasons.get(job_id, "")

    def progress(self, job_id: str) -> jobs_pb.Progress | None:
        """Returns the newest progress of a job, if any is known."""
        status = self._jobs.get(job_id)
        return status.progress if status else None

    def brought_up_to_date(self, job: jobs_pb.Job) -> jobs_pb.Job:
        """Returns the job itself, given its newest progress, and why it waits if it does or what became of it.

        One that has ended keeps the figures of its last epoch.
        """
        if job.state not in ENDED and (progress := self.progress(job.job_id)):
            job.progress.CopyFrom(progress)
        if job.state == QUEUED:
            job.reason = self.waiting_reason(job.job_id) or job.reason
        elif job.state in LAUNCHED:
            job.reason = self._unwritten_ends.get(job.job_id, job.reason)
        return job

    def snapshot(self) -> Mapping[str, JobStatus]:
        """Returns all figures by job id; those of jobs that ended long ago are dropped first."""
        self._drop_old()
        return dict(self._jobs)

    def next_change(self, job_id: str) -> asyncio.Event:
        """Returns what is set at the next event of the job. Ask for it before reading the job."""
        return self._changes.next(job_id)

    def next_end(self, job_id: str) -> asyncio.Event:
        """Returns what is set when the job ends next."""
        return self._ends.next(job_id)

    def notify_all(self) -> None:
        """Wakes everybody who waits for any job."""
        self._changes.notify_all()
        self._ends.notify_all()

    def _enter_state(self, job: jobs_pb.Job) -> None:
        if job.state == STARTING:
            self._unwritten_ends.pop(job.job_id, None)
            self._jobs[job.job_id] = _first_status(job)
        elif job.state in (QUEUED, PAUSED):
            # What is known says nothing any more.
            self._forget(job.job_id)
        elif job.state in ENDED:
            self._end(job.job_id)

    def _end(self, job_id: str) -> None:
        """Keeps the figures of a job that has ended for a while. What is a state and not a total goes to zero."""
        self._drop_old()
        self._waiting_reasons.pop(job_id, None)
        self._unwritten_ends.pop(job_id, None)
        if status := self._jobs.get(job_id):
            status.ended = self._clock()
            status.progress, status.telemetry = _at_rest(status)
        self._ends.notify(job_id)

    def _forget(self, job_id: str) -> None:
        self._jobs.pop(job_id, None)
        self._waiting_reasons.pop(job_id, None)
        self._unwritten_ends.pop(job_id, None)

    def _update_progress(self, event: ProgressReported) -> None:
        status = self._jobs.setdefault(event.job_id, JobStatus())
        status.progress = event.progress
        if event.telemetry is not None:
            status.telemetry = event.telemetry
        if status.begun_at is None:
            # A later attempt goes on from a checkpoint, and is heard of soon after.
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
    """Enters what an event says of a job with processes."""
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


def _at_rest(status: JobStatus) -> tuple[jobs_pb.Progress, ps_pb.Telemetry]:
    """Progress and telemetry without what is a state of processes; copies, for others may be reading the ones there."""
    progress, telemetry = jobs_pb.Progress(), ps_pb.Telemetry()
    progress.CopyFrom(status.progress)
    telemetry.CopyFrom(status.telemetry)
    progress.workers_alive, progress.samples_per_second = 0, 0
    telemetry.transport_workers.clear()
    telemetry.staleness = 0
    for told in (telemetry, *telemetry.workers):
        told.ClearField("process")
    return progress, telemetry
