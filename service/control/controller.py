"""Job controller: starts queued jobs, runs their attempts, and moves the jobs between states."""

import asyncio
import errno
import logging
import sqlite3
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from nablad.v1 import jobs_pb2 as jobs_pb
from service.cluster.errors import ClusterLostError
from service.cluster.interfaces import ClusterLike, JobProcessesLike
from service.control.admission import Admission
from service.control.commands import Commands
from service.control.interfaces import AttemptLike
from service.control.orphans import OrphanedJobs
from service.control.retry_policy import RetryDelays, decide_retry, retry_delay_seconds
from service.control.transitions import RunningJob, RunningJobs, Transitions
from service.errors import AttemptFailed, AttemptLost, DamagedError, DatabaseRowError, ServiceError
from service.events.job_events import WaitingExplained
from service.events.publisher import EventPublisher
from service.stores.job_states import FAILED, STARTING, SUCCEEDED
from service.stores.jobs import JobStore, QueuedJob
from workers.runtime.concurrency import wait_for_event
from workers.runtime.failpoints import failpoint

__all__ = ["Controller"]

_log = logging.getLogger(__name__)

# Longest time between two reconciliations of the queue. The cluster may grow without notice.
_LONGEST_INTERVAL_SECONDS: Final = 2.0
# Shortest time between two reconciliations while jobs wait that cannot start, however many are added. When a job has
# released its CPUs, the next one follows at once.
_SHORTEST_INTERVAL_SECONDS: Final = 1.0
# Errors that only writing raises.
_WRITE_ERRORS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


class Controller:
    """Starts jobs as CPUs become free. Each running job has a task of its own.

    Attributes:
        commands: Commands of clients: pause, resume, cancel, …
    """

    def __init__(
        self,
        jobs: JobStore,
        events: EventPublisher,
        cluster: ClusterLike,
        attempt: Callable[[jobs_pb.Job, JobProcessesLike], AttemptLike],
        now: Callable[[], datetime],
        clock: Callable[[], float],
        admission: Admission,
    ) -> None:
        """`attempt` makes the attempt of a job on its processes. `clock` returns monotonic seconds."""
        self._jobs = jobs
        self._events = events
        self._cluster = cluster
        self._attempt = attempt
        self._now = now
        self._clock = clock
        self._admission = admission
        self._retry_delays = RetryDelays(clock, now, self._longest_delay)
        self._running = RunningJobs()
        self._transitions = Transitions(jobs, events)
        self._orphaned_jobs = OrphanedJobs(jobs, self._running, self._transitions)
        self.commands = Commands(jobs, events, self._running, self._transitions, self.wake)
        self._changed = asyncio.Event()
        self._cpus_released = asyncio.Event()
        self._queued: list[QueuedJob] = []  # at the last reconciliation
        self._delayed: Mapping[str, float] = {}  # at the last reconciliation
        self._damaged: set[str] = set()  # jobs that cannot be read
        self._draining = False

    def wake(self) -> None:
        """Reconciles the queue soon, because something has changed."""
        self._changed.set()

    async def run(self, *, after_crash: bool = False) -> None:
        """Reconciles the queue until cancelled, then stops all job processes. The jobs go on at the next start.

        Args:
            after_crash: Whether the previous service ended without a signal to stop.
        """
        self._orphaned_jobs.take_over_jobs(after_crash=after_crash)
        try:
            while True:
                self._changed.clear()
                self._cpus_released.clear()
                self._queued, self._delayed = [], {}
                await self._reconcile_queue()
                seconds = self._seconds_to_next_reconciliation()
                if self._queued:
                    rest = min(_SHORTEST_INTERVAL_SECONDS, seconds)
                    await wait_for_event(self._cpus_released, rest)
                    seconds -= rest
                await wait_for_event(self._changed, seconds)
        finally:
            await self._stop_all()

    async def drain(self) -> None:
        """Starts no more jobs, and queues those that run for the next start, each after a checkpoint."""
        self._draining = True
        await self.commands.drain()

    # -- the queue -----------------------------------------------------------------------------------------------------

    async def _reconcile_queue(self) -> None:
        try:
            self._orphaned_jobs.requeue_jobs()
            while await self._launch_next():
                pass
        except ClusterLostError as error:
            _log.info("no job can start: %s", error)
        except sqlite3.Error as error:
            _log.warning("cannot reconcile the queue, will try again: %s", error)
        except Exception:  # noqa: BLE001 (the next reconciliation may succeed)
            _log.exception("could not reconcile the queue, will try again")

    async def _launch_next(self) -> bool:
        """Starts the next job that may start, if any. Returns whether another one may follow."""
        self._queued = [job for job in self._jobs.queued_jobs() if self._is_startable(job.job_id)]
        if self._draining or not self._queued:
            return False
        self._delayed = self._retry_delays.delayed_jobs(self._queued)
        decision = self._admission.choose_next_job(
            self._queued, await self._cluster.list_nodes(), self._clock(), self._delayed
        )
        for job_id, reason in decision.reasons.items():
            self._explain_waiting(job_id, reason)
        return await self._launch(decision.job, decision.workers) if decision.job else False

    async def _launch(self, queued: QueuedJob, workers: int) -> bool:
        if damage := self._jobs.damage_of_queued(queued):
            return self._skip_damaged(queued.job_id, damage)
        processes = await self._cluster.reserve_cpus(workers, queued.cpus_per_worker)
        if processes is None:
            self._explain_waiting(queued.job_id, "waits for CPUs that somebody else took")
            return False
        try:
            if not self._may_start(queued):
                await processes.stop()
                return not self._draining
            job = self._transitions.move(queued.job_id, STARTING, "its processes are being started")
            attempt = self._attempt(job, processes)
        except BaseException as error:
            if isinstance(error, sqlite3.Error):
                reason = f"waits until the service can write down that it starts ({error})"
                self._explain_waiting(queued.job_id, reason)
            await processes.stop()
            if isinstance(error, DatabaseRowError):
                return self._skip_damaged(queued.job_id, error)
            raise
        task = asyncio.create_task(self._run_job(job.job_id, attempt, processes), name=job.job_id)
        self._running.add(job.job_id, RunningJob(attempt, task))
        task.add_done_callback(lambda _: self._attempt_ended(job.job_id))
        return True

    def _skip_damaged(self, job_id: str, damage: DatabaseRowError) -> bool:
        """Skips a damaged job, so that the jobs behind it may start. Returns True."""
        _log.error("skipping a damaged job: %s", damage)
        self._damaged.add(job_id)
        return True

    def _is_startable(self, job_id: str) -> bool:
        return self._running.is_free(job_id) and job_id not in self._damaged

    def _explain_waiting(self, job_id: str, reason: str) -> None:
        self._events.publish(WaitingExplained(job_id, reason))

    def _may_start(self, queued: QueuedJob) -> bool:
        """Returns whether the job is still queued for just these CPUs: a client may have changed it meanwhile."""
        return not self._draining and self._running.is_free(queued.job_id) and queued in self._jobs.queued_jobs()

    def _longest_delay(self, job_id: str) -> float:
        try:
            job = self._jobs.get(job_id)
        except (DatabaseRowError, ServiceError):
            return 0.0  # it cannot start, and blocks no other job
        return retry_delay_seconds(max(job.lost_attempts, job.lost_with_ray))

    def _seconds_to_next_reconciliation(self) -> float:
        """Returns the seconds until the first delayed job may start, but no more than the longest interval."""
        clock = self._clock()
        return min([_LONGEST_INTERVAL_SECONDS, *(max(due - clock, 0.0) for due in self._delayed.values())])

    # -- one job -------------------------------------------------------------------------------------------------------

    async def _run_job(self, job_id: str, attempt: AttemptLike, processes: JobProcessesLike) -> None:
        try:
            await self._run_attempt(job_id, attempt)
        finally:
            await processes.stop()

    async def _run_attempt(self, job_id: str, attempt: AttemptLike) -> None:
        """Runs the attempt and moves the job by its outcome, which is written before the processes are stopped."""
        try:
            ending = await attempt.run()
            failpoint("job.ending")
        except AttemptFailed as failure:
            lines = failure.error_lines
            self._transitions.move(job_id, FAILED, str(failure), failure_kind=failure.kind, last_error_lines=lines)
        except DamagedError as damage:
            # Another attempt would read the same damage.
            self._transitions.move(job_id, FAILED, str(damage), failure_kind=jobs_pb.FAILURE_KIND_ENVIRONMENT)
        except AttemptLost as loss:
            self._retry_or_fail(job_id, loss)
        except (OSError, sqlite3.Error) as error:
            _log.exception("job %s", job_id)
            self._retry_or_fail(job_id, AttemptLost(f"the service {_failed_at(error)}", cause="service"))
        except Exception:  # noqa: BLE001 (one job must not take the controller down)
            _log.exception("job %s failed in the service", job_id)
            self._transitions.move(job_id, FAILED, "the service failed at running it; its log says more")
        else:
            self._transitions.move(job_id, SUCCEEDED, ending.reason, model_id=ending.model_id)
            await attempt.clean_up()

    def _retry_or_fail(self, job_id: str, loss: AttemptLost) -> None:
        """Queues the job for another attempt, or fails it, as the retry policy decides."""
        decision = decide_retry(self._jobs.get(job_id), loss, self._now())
        self._transitions.move(job_id, decision.state, decision.reason, lost_cause=loss.cause, **decision.changes)

    def _attempt_ended(self, job_id: str) -> None:
        """Unregisters a job whose task has ended, and reconciles the queue."""
        task = self._running.remove(job_id).task
        if not task.cancelled() and (error := task.exception()):
            if self._transitions.is_unwritten(job_id):
                _log.warning("job %s: its new state cannot be written yet: %s", job_id, error)
            else:
                _log.error("job %s: its new state could not be written; it is queued again", job_id, exc_info=error)
        self._cpus_released.set()
        self.wake()

    async def _stop_all(self) -> None:
        tasks = self._running.tasks()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _failed_at(error: OSError | sqlite3.Error) -> str:
    """Returns what the service failed at, as the end of a sentence. Only some errors imply that it was writing."""
    if isinstance(error, sqlite3.Error) or error.errno in _WRITE_ERRORS:
        return f"could not write: {error}"
    return f"could not read or write: {error}"
