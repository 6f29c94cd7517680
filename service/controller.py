"""The controller: takes jobs from the queue, follows their attempts, and moves them along."""

import asyncio
import logging
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NoReturn, Protocol

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.job_states import ENDED, LAUNCHED
from service.live import LiveJobs
from service.outcomes import AttemptFailed, AttemptLost
from service.stores.jobs import JobStore
from service.waiting import wait_for_event

__all__ = ["ClusterLike", "Controller", "FleetLike"]

_log = logging.getLogger(__name__)

# Attempts of one job that may be lost before it is given up. That the service itself ended does not count.
_LOSSES = 3
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

    async def node_cpus(self) -> list[int]:
        """The CPUs of each node that is there, busy or not."""
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
        self._cancelling: set[str] = set()
        self._losses: Counter[str] = Counter()
        self._look = asyncio.Event()

    def wake(self) -> None:
        """Something changed: look at the queue."""
        self._look.set()

    async def run(self) -> None:
        """Works until it is cancelled; then stops every fleet. Jobs that were launched go on at the next start."""
        try:
            while True:
                self._look.clear()
                try:
                    while job := self._next(await self._cluster.node_cpus()):
                        await self._admit(job)
                except Exception:  # noqa: BLE001 (a full disk, Ray out of reach: both may come back)
                    _log.exception("the queue could not be worked on; the next look follows")
                await wait_for_event(self._look, _LOOK_SECONDS)
        finally:
            await self._stop_all()

    async def cancel(self, job_id: str) -> jobs_pb.Job:
        """Cancels a job in any state that is not final; its processes are told to end before it is cancelled."""
        # A task of its own, so that a client that goes away does not stop half of it.
        return await asyncio.shield(asyncio.create_task(self._cancel(job_id)))

    async def _cancel(self, job_id: str) -> jobs_pb.Job:
        self._cancelling.add(job_id)
        try:
            if task := self._tasks.get(job_id):
                task.cancel()
                await asyncio.wait([task])
            return self._move(job_id, jobs_pb.JOB_STATE_CANCELLED, "cancelled by a client")
        finally:
            self._cancelling.discard(job_id)

    def _next(self, node_cpus: Sequence[int]) -> jobs_pb.Job | None:
        """The oldest queued job that nodes with so many CPUs can ever hold; the others are told why they wait."""
        self._requeue_orphans()
        for job in self._jobs.in_states([jobs_pb.JOB_STATE_QUEUED]):
            if job.job_id in self._tasks or job.job_id in self._cancelling:
                continue
            room = _room(job, node_cpus)
            if room >= job.spec.distribution.workers:
                return job
            self._note(job, f"needs {_asked(job)}, but the cluster has room for {room}: it waits until nodes are added")
        return None

    def _requeue_orphans(self) -> None:
        """What is launched without a task of ours has no processes any more.

        The service that had it has ended, or its end could not be written down.
        """
        for job in self._jobs.in_states(LAUNCHED):
            if job.job_id not in self._tasks and job.job_id not in self._cancelling:
                self._move(job.job_id, jobs_pb.JOB_STATE_QUEUED, "the service was restarted; another attempt follows")

    async def _admit(self, job: jobs_pb.Job) -> None:
        """Launches a job; returns when it has its CPUs, so that later jobs cannot take them, or has ended.

        A job that waits while the cluster loses nodes, so that it no longer fits, goes back to the queue.
        """
        admitted = asyncio.Event()
        task = asyncio.create_task(self._run_job(job, admitted), name=job.job_id)
        self._tasks[job.job_id] = task
        task.add_done_callback(lambda _: self._forget(job.job_id, admitted))
        while not admitted.is_set():
            await wait_for_event(admitted, _LOOK_SECONDS)
            if not admitted.is_set() and not await self._fits(job):
                task.cancel()
                await asyncio.wait([task])

    async def _fits(self, job: jobs_pb.Job) -> bool:
        """Whether the cluster can ever hold the job; as long as it does not answer, what it last said is believed."""
        try:
            return _room(job, await self._cluster.node_cpus()) >= job.spec.distribution.workers
        except Exception:  # noqa: BLE001 (of whatever kind: Ray may come back)
            _log.exception("the cluster does not answer")
            return True

    async def _run_job(self, job: jobs_pb.Job, admitted: asyncio.Event) -> None:
        job_id, spec = job.job_id, job.spec.distribution
        try:
            self._note(job, f"waits for {_asked(job)}")
            async with self._cluster.reserve(spec.workers, spec.cpus_per_worker) as fleet:
                admitted.set()
                job = self._move(job_id, jobs_pb.JOB_STATE_STARTING, "its processes are being started")
                model_id = await self._attempt(job, fleet)
            self._move(job_id, jobs_pb.JOB_STATE_SUCCEEDED, f"model {model_id} is ready", model_id)
        except AttemptFailed as failure:
            self._move(job_id, jobs_pb.JOB_STATE_FAILED, str(failure))
        except AttemptLost as loss:
            self._again(job, str(loss))
        except (OSError, sqlite3.Error) as error:
            _log.exception("job %s", job_id)
            self._again(job, f"the service could not write: {error}")
        except Exception:  # noqa: BLE001 (one job must not take the controller down)
            _log.exception("job %s failed in the service", job_id)
            self._move(job_id, jobs_pb.JOB_STATE_FAILED, "the service failed at running it; its log says more")

    def _again(self, job: jobs_pb.Job, cause: str) -> None:
        self._losses[job.job_id] += 1
        if self._losses[job.job_id] < _LOSSES:
            self._move(job.job_id, jobs_pb.JOB_STATE_QUEUED, f"{cause}; attempt {job.attempt + 1} follows")
        else:
            self._move(job.job_id, jobs_pb.JOB_STATE_FAILED, f"{cause}; given up after {_LOSSES} lost attempts")

    def _move(self, job_id: str, state: jobs_pb.JobState.ValueType, reason: str, model_id: str = "") -> jobs_pb.Job:
        job = self._jobs.move(job_id, state, reason, model_id=model_id)
        _log.info("job %s: %s", job_id, reason)
        if state in ENDED:
            self._losses.pop(job_id, None)
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

    def _forget(self, job_id: str, admitted: asyncio.Event) -> None:
        task = self._tasks.pop(job_id)
        if not task.cancelled() and (error := task.exception()):
            _log.error("job %s: its end could not be written down; it is queued again", job_id, exc_info=error)
        admitted.set()
        self.wake()

    async def _stop_all(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _room(job: jobs_pb.Job, node_cpus: Sequence[int]) -> int:
    """How many of the job's workers the nodes could hold if nothing else ran."""
    return sum(cpus // job.spec.distribution.cpus_per_worker for cpus in node_cpus)


def _asked(job: jobs_pb.Job) -> str:
    """What a job asks for, in words."""
    spec = job.spec.distribution
    workers = "1 worker" if spec.workers == 1 else f"{spec.workers} workers"
    return f"{workers} with {spec.cpus_per_worker} CPU" + ("" if spec.cpus_per_worker == 1 else "s") + " each"
