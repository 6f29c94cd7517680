"""What is known of jobs beyond the database: figures as they come, why jobs wait, and a bell for those who watch."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.stores.job_states import ENDED, LAUNCHED, QUEUED

__all__ = ["LiveJob", "LiveJobs"]

# The series of a job stay this long after its end, for Prometheus to scrape the last figures.
_RETENTION_SECONDS = 900.0


@dataclass
class LiveJob:
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


class _Bells:
    """Events by job id, each for those who wait now; those who come after it was set get another one."""

    def __init__(self) -> None:
        # A bell is here as long as somebody waits for it.
        self._bells: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()

    def get(self, job_id: str) -> asyncio.Event:
        if (bell := self._bells.get(job_id)) is None:
            bell = self._bells[job_id] = asyncio.Event()
        return bell

    def ring(self, job_id: str) -> None:
        if bell := self._bells.pop(job_id, None):
            bell.set()

    def ring_all(self) -> None:
        for job_id in list(self._bells):
            self.ring(job_id)


class LiveJobs:
    """The figures of all jobs that run or have ended a short time ago, and why others wait."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._clock = clock
        self._jobs: dict[str, LiveJob] = {}
        self._explanations: dict[str, str] = {}
        self._unwritten: dict[str, str] = {}
        self._bells = _Bells()
        self._end_bells = _Bells()

    def begin(self, job: jobs_pb.Job, now: float) -> None:
        """An attempt of a job begins, in Unix seconds."""
        progress = jobs_pb.Progress()
        progress.CopyFrom(job.progress)
        progress.workers_alive, progress.samples_per_second = 0, 0
        self._unwritten.pop(job.job_id, None)
        self._jobs[job.job_id] = LiveJob(
            progress,
            attempt=job.attempt,
            workers=job.spec.distribution.workers,
            checkpoint_time=now,
            checkpoint_interval=job.spec.checkpoints.every_seconds,
        )

    def update(self, job_id: str, progress: jobs_pb.Progress, telemetry: ps_pb.Telemetry | None = None) -> None:
        """New figures came; of telemetry none if it was not asked for."""
        live = self._jobs.setdefault(job_id, LiveJob())
        live.progress = progress
        if telemetry is not None:
            live.telemetry = telemetry
        if live.begun_at is None:
            # A later attempt goes on from a checkpoint, and is heard of soon after.
            live.begun_at = (0, 0) if live.attempt == 1 else (progress.step, progress.samples)
        self.ring(job_id)

    def asks_for(self, job_id: str, workers: int) -> None:
        """The job asks for so many workers by now."""
        if live := self._jobs.get(job_id):
            live.workers = workers

    def goes_on_from(self, job_id: str, step: int) -> None:
        """The attempt begins with the checkpoint of this step."""
        if live := self._jobs.get(job_id):
            live.checkpoint_step = step

    def add_checkpoint(self, job_id: str, step: int, now: float) -> None:
        """A checkpoint was written, in Unix seconds."""
        if live := self._jobs.get(job_id):
            live.checkpoints += 1
            live.checkpoint_step, live.checkpoint_time = step, now

    def add_checkpoint_failure(self, job_id: str) -> None:
        """A checkpoint could not be written."""
        if live := self._jobs.get(job_id):
            live.checkpoint_failures += 1

    def end(self, job_id: str) -> None:
        """The job has ended; its figures go after a while. What is a state and not a total goes to zero at once."""
        self._drop_old()
        self._explanations.pop(job_id, None)
        self._unwritten.pop(job_id, None)
        if live := self._jobs.get(job_id):
            live.ended = self._clock()
            live.progress, live.telemetry = _at_rest(live)
        self.ring(job_id)
        self._end_bells.ring(job_id)

    def forget(self, job_id: str) -> None:
        """What is known says nothing any more: the job was deleted or paused, or another attempt follows."""
        self._jobs.pop(job_id, None)
        self._explanations.pop(job_id, None)
        self._unwritten.pop(job_id, None)
        self.ring(job_id)

    def explain(self, job_id: str, reason: str) -> None:
        """Says, as a sentence, why a queued job still waits, until it moves; empty: that is not known."""
        if self._explanations.get(job_id) != reason:
            self._explanations[job_id] = reason
            self.ring(job_id)

    def explanation(self, job_id: str) -> str:
        """Why a queued job still waits, as a sentence; empty if no more is known than its reason says."""
        return self._explanations.get(job_id, "")

    def explain_end(self, job_id: str, reason: str) -> None:
        """Says, as a sentence, what became of a job without processes while that cannot be written down."""
        self._unwritten[job_id] = reason
        self.ring(job_id)

    def progress(self, job_id: str) -> jobs_pb.Progress | None:
        """The newest progress of a job, if any is known."""
        live = self._jobs.get(job_id)
        return live.progress if live else None

    def brought_up_to_date(self, job: jobs_pb.Job) -> jobs_pb.Job:
        """The job itself, given its newest progress, and why it waits if it does or what became of it.

        One that has ended keeps the figures of its last epoch.
        """
        if job.state not in ENDED and (progress := self.progress(job.job_id)):
            job.progress.CopyFrom(progress)
        if job.state == QUEUED:
            job.reason = self.explanation(job.job_id) or job.reason
        elif job.state in LAUNCHED:
            job.reason = self._unwritten.get(job.job_id, job.reason)
        return job

    def snapshot(self) -> Mapping[str, LiveJob]:
        """All figures; those of jobs that ended long ago are dropped first."""
        self._drop_old()
        return dict(self._jobs)

    def bell(self, job_id: str) -> asyncio.Event:
        """An event that is set when next anything happens to the job. Ask for it before looking at the job."""
        return self._bells.get(job_id)

    def end_bell(self, job_id: str) -> asyncio.Event:
        """An event that is set when next the job ends."""
        return self._end_bells.get(job_id)

    def ring(self, job_id: str) -> None:
        """Wakes those who watch the job."""
        self._bells.ring(job_id)

    def ring_all(self) -> None:
        """Wakes everybody."""
        self._bells.ring_all()
        self._end_bells.ring_all()

    def _drop_old(self) -> None:
        oldest = self._clock() - _RETENTION_SECONDS
        self._jobs = {job_id: live for job_id, live in self._jobs.items() if live.ended is None or live.ended > oldest}


def _at_rest(live: LiveJob) -> tuple[jobs_pb.Progress, ps_pb.Telemetry]:
    """Progress and telemetry without what is a state of processes; copies, for others may be reading the ones there."""
    progress, telemetry = jobs_pb.Progress(), ps_pb.Telemetry()
    progress.CopyFrom(live.progress)
    telemetry.CopyFrom(live.telemetry)
    progress.workers_alive, progress.samples_per_second = 0, 0
    telemetry.transport_workers.clear()
    telemetry.staleness = 0
    for told in (telemetry, *telemetry.workers):
        told.ClearField("process")
    return progress, telemetry
