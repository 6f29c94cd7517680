"""The controller: takes jobs from the queue, follows their attempts, and moves them along."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import NoReturn, Protocol

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.errors import ServiceError
from service.job_states import ENDED, LAUNCHED
from service.live import LiveJobs
from service.outcomes import AttemptFailed, AttemptLost
from service.stores.jobs import JobStore
from service.waiting import wait_for_event

__all__ = ["ClusterLike", "Controller", "FleetLike"]

_log = logging.getLogger(__name__)

# Launches of one job before it is given up.
_ATTEMPTS = 3
# The queue is looked at anew at least this often: a cluster may have grown.
_LOOK_SECONDS = 2.0


class FleetLike(Protocol):
    """The processes of one attempt."""

    async def start(self, assignment: ps_pb.Assignment, secret: str) -> str:
        """Starts them; gives the address of the parameter server."""
        ...

    async def failure(self) -> NoReturn:
        """Waits until one fails for good, and raises AttemptFailed or AttemptLost."""
        ...


class ClusterLike(Protocol):
    """Where fleets run."""

    def total_cpus(self) -> int:
        """CPUs that are there, busy or not."""
        ...

    def reserve(self, workers: int, cpus_per_worker: int) -> AbstractAsyncContextManager[FleetLike]:
        """Waits for CPUs; stops the fleet at the end."""
        ...


Attempt = Callable[[jobs_pb.Job, FleetLike], Awaitable[str]]


class Controller:
    """Starts jobs in the order of their submission as CPUs become free; each launched job has a task of its own.

    A job that needs more CPUs than the cluster has is passed over until nodes are added.
    """

    def __init__(self, jobs: JobStore, live: LiveJobs, cluster: ClusterLike, attempt: Attempt) -> None:
        """`attempt` runs a launched job on a fleet to its end and gives the id of the model."""
        self._jobs = jobs
        self._live = live
        self._cluster = cluster
        self._attempt = attempt
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._look = asyncio.Event()

    def wake(self) -> None:
        """Something changed: look at the queue."""
        self._look.set()

    async def run(self) -> None:
        """Works until it is cancelled; then stops every fleet. Jobs that were launched go on at the next start."""
        self._requeue_launched()
        try:
            while True:
                self._look.clear()
                if job := self._next():
                    await self._admit(job)
                else:
                    await wait_for_event(self._look, _LOOK_SECONDS)
        finally:
            await self._stop_all()

    async def cancel(self, job_id: str) -> jobs_pb.Job:
        """Cancels a job in any state that is not final; its processes are gone when this returns."""
        job = self._move(job_id, jobs_pb.JOB_STATE_CANCELLED, "cancelled by a client")
        if task := self._tasks.get(job_id):
            task.cancel()
            await asyncio.wait([task])
        return job

    def _requeue_launched(self) -> None:
        """What was launched when the last daemon ended has no processes any more."""
        for job in self._jobs.in_states(LAUNCHED):
            self._move(job.job_id, jobs_pb.JOB_STATE_QUEUED, "the service was restarted; another attempt follows")

    def _next(self) -> jobs_pb.Job | None:
        """The oldest queued job that the cluster can ever hold; the others are told why they wait."""
        cpus = self._cluster.total_cpus()
        for job in self._jobs.in_states([jobs_pb.JOB_STATE_QUEUED]):
            if job.job_id in self._tasks:
                continue
            needed = _cpus(job)
            if needed <= cpus:
                return job
            self._note(job, f"needs {needed} CPUs, but the cluster has {cpus}: it waits until nodes are added")
        return None

    async def _admit(self, job: jobs_pb.Job) -> None:
        """Launches a job; returns when it has its CPUs, so that later jobs cannot take them, or when it has ended."""
        admitted = asyncio.Event()
        task = asyncio.create_task(self._run_job(job, admitted), name=job.job_id)
        self._tasks[job.job_id] = task
        task.add_done_callback(lambda _: self._forget(job.job_id))
        waiting = asyncio.create_task(admitted.wait())
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    async def _run_job(self, job: jobs_pb.Job, admitted: asyncio.Event) -> None:
        job_id, spec = job.job_id, job.spec.distribution
        try:
            self._note(job, f"waits for {_cpus(job)} CPUs")
            async with self._cluster.reserve(spec.workers, spec.cpus_per_worker) as fleet:
                admitted.set()
                job = self._move(job_id, jobs_pb.JOB_STATE_STARTING, "its processes are being started")
                model_id = await self._attempt(job, fleet)
            self._move(job_id, jobs_pb.JOB_STATE_SUCCEEDED, f"model {model_id} is ready", model_id)
        except AttemptFailed as failure:
            self._move(job_id, jobs_pb.JOB_STATE_FAILED, str(failure))
        except AttemptLost as loss:
            self._again(job, str(loss))
        except ServiceError as error:
            # A client cancelled the job in the moment of a move.
            _log.info("job %s: %s", job_id, error)
        except Exception:  # noqa: BLE001 (one job must not take the controller down)
            _log.exception("job %s failed in the service", job_id)
            self._move(job_id, jobs_pb.JOB_STATE_FAILED, "the service failed at running it; its log says more")

    def _again(self, job: jobs_pb.Job, cause: str) -> None:
        if job.attempt < _ATTEMPTS:
            self._move(job.job_id, jobs_pb.JOB_STATE_QUEUED, f"{cause}; attempt {job.attempt + 1} follows")
        else:
            self._move(job.job_id, jobs_pb.JOB_STATE_FAILED, f"{cause}; given up after {job.attempt} attempts")

    def _move(self, job_id: str, state: jobs_pb.JobState.ValueType, reason: str, model_id: str = "") -> jobs_pb.Job:
        job = self._jobs.move(job_id, state, reason, model_id=model_id)
        _log.info("job %s: %s", job_id, reason)
        if state in ENDED:
            self._live.end(job_id)
        elif state == jobs_pb.JOB_STATE_QUEUED:
            self._live.forget(job_id)
        else:
            self._live.ring(job_id)
        return job

    def _note(self, job: jobs_pb.Job, reason: str) -> None:
        if job.reason != reason:
            self._jobs.note(job.job_id, reason)
            self._live.ring(job.job_id)

    def _forget(self, job_id: str) -> None:
        del self._tasks[job_id]
        self.wake()

    async def _stop_all(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _cpus(job: jobs_pb.Job) -> int:
    spec = job.spec.distribution
    return spec.workers * spec.cpus_per_worker
