"""What is known of jobs beyond the database: figures as they come, why jobs wait, and a bell for those who watch."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.job_states import ENDED, QUEUED

__all__ = ["LiveJob", "LiveJobs"]

# The series of a job stay this long after its end, for Prometheus to scrape the last figures.
_RETENTION_SECONDS = 900.0


@dataclass
class LiveJob:
    """The newest figures of a job's present attempt."""

    progress: jobs_pb.Progress = field(default_factory=jobs_pb.Progress)
    telemetry: ps_pb.Telemetry = field(default_factory=ps_pb.Telemetry)
    ended: float | None = None


class LiveJobs:
    """The figures of all jobs that run or have ended a short time ago, and why others wait."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._clock = clock
        self._jobs: dict[str, LiveJob] = {}
        self._explanations: dict[str, str] = {}
        # A bell is here as long as somebody waits for it.
        self._bells: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()

    def update(self, job_id: str, progress: jobs_pb.Progress, telemetry: ps_pb.Telemetry) -> None:
        """New figures came."""
        self._jobs[job_id] = LiveJob(progress, telemetry)
        self.ring(job_id)

    def end(self, job_id: str) -> None:
        """The job has ended; its figures go after a while. What is a state and not a total goes to zero at once."""
        self._drop_old()
        self._explanations.pop(job_id, None)
        if live := self._jobs.get(job_id):
            live.ended = self._clock()
            live.progress.workers_alive = 0
            live.progress.samples_per_second = 0
            live.telemetry.transport_workers.clear()
        self.ring(job_id)

    def forget(self, job_id: str) -> None:
        """What is known says nothing any more: the job was deleted or paused, or another attempt follows."""
        self._jobs.pop(job_id, None)
        self._explanations.pop(job_id, None)
        self.ring(job_id)

    def explain(self, job_id: str, reason: str) -> None:
        """Says, as a sentence, why a queued job still waits; until it moves."""
        if self._explanations.get(job_id) != reason:
            self._explanations[job_id] = reason
            self.ring(job_id)

    def progress(self, job_id: str) -> jobs_pb.Progress | None:
        """The newest progress of a job, if any is known."""
        live = self._jobs.get(job_id)
        return live.progress if live else None

    def current(self, job: jobs_pb.Job) -> jobs_pb.Job:
        """A copy of the job as it is now: with its newest progress, and why it waits if it does.

        One that has ended keeps the figures of its last epoch.
        """
        current = jobs_pb.Job()
        current.CopyFrom(job)
        if job.state not in ENDED and (progress := self.progress(job.job_id)):
            current.progress.CopyFrom(progress)
        if job.state == QUEUED:
            current.reason = self._explanations.get(job.job_id, job.reason)
        return current

    def snapshot(self) -> Mapping[str, LiveJob]:
        """All figures; those of jobs that ended long ago are dropped first."""
        self._drop_old()
        return dict(self._jobs)

    def bell(self, job_id: str) -> asyncio.Event:
        """An event that is set when next anything happens to the job. Ask for it before looking at the job."""
        if (bell := self._bells.get(job_id)) is None:
            bell = self._bells[job_id] = asyncio.Event()
        return bell

    def ring(self, job_id: str) -> None:
        """Wakes those who watch the job."""
        if bell := self._bells.pop(job_id, None):
            bell.set()

    def ring_all(self) -> None:
        """Wakes everybody."""
        for job_id in list(self._bells):
            self.ring(job_id)

    def _drop_old(self) -> None:
        oldest = self._clock() - _RETENTION_SECONDS
        self._jobs = {job_id: live for job_id, live in self._jobs.items() if live.ended is None or live.ended > oldest}
