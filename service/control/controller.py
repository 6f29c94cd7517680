"""The controller: takes jobs from the queue, follows their attempts, and moves them along."""

import asyncio
import errno
import logging
import sqlite3
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from nablad.v1 import jobs_pb2 as jobs_pb
from service.cluster.errors import ClusterLostError
from service.cluster.interfaces import ClusterLike, JobProcessesLike
from service.control.admission import Admission
from service.control.back_off import BackOff, pause_seconds
from service.control.commands import Commands
from service.control.interfaces import AttemptLike
from service.control.orphans import Orphans
from service.control.transitions import RunningJob, RunningJobs, Transitions
from service.errors import AttemptFailed, AttemptLost, DamagedError, DatabaseRowError, ServiceError
from service.events.job_events import WaitingExplained
from service.events.publisher import EventPublisher
from service.stores.job_states import FAILED, QUEUED, STARTING, SUCCEEDED
from service.stores.jobs import JobStore, Waiting
from workers.runtime.concurrency import wait_for_event
from workers.runtime.failpoints import failpoint

__all__ = ["Controller"]

_log = logging.getLogger(__name__)

# The queue is looked at anew at least this often: a cluster may have grown.
_LOOK_SECONDS: Final = 2.0
# And no more often than this while jobs wait that cannot start, however many are added to them; but at once when a job
# has given its CPUs back.
_REST_SECONDS: Final = 1.0
# Ray's end is not a job's fault; but where it comes so often before any headway, it may be one's that runs there.
_MOST_LOST_WITH_RAY: Final = 20
# Errors that only writing has.
_WRITING: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


class Controller:
    """Starts jobs as CPUs become free; each launched job has a task of its own.

    Attributes:
        commands: What clients may ask for.
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
        """`attempt` makes the attempt of a launched job on a fleet, `clock` gives monotonic seconds."""
        self._jobs = jobs
        self._events = events
        self._cluster = cluster
        self._attempt = attempt
        self._now = now
        self._clock = clock
        self._admission = admission
        self._back_off = BackOff(clock, now, self._longest_pause)
        self._running = RunningJobs()
        self._transitions = Transitions(jobs, events)
        self._orphans = Orphans(jobs, self._running, self._transitions)
        self.commands = Commands(jobs, events, self._running, self._transitions, self.wake)
        self._look = asyncio.Event()
        self._freed = asyncio.Event()
        self._waiting: list[Waiting] = []  # as of the last look
        self._held: Mapping[str, float] = {}  # as of the last look
        self._damaged: set[str] = set()  # jobs that cannot be read
        self._draining = False

    def wake(self) -> None:
        """Something changed: look at the queue."""
        self._look.set()

    async def run(self, *, after_crash: bool = False) -> None:
        """Works until it is cancelled; then stops every fleet. Jobs that were launched go on at the next start.

        Args:
            after_crash: Whether the service before has ended without being told to.
        """
        self._orphans.inherit(after_crash=after_crash)
        try:
            while True:
                self._look.clear()
                self._freed.clear()
                self._waiting, self._held = [], {}
                await self._look_at_queue()
                seconds = self._seconds_to_next_look()
                if self._waiting:
                    rest = min(_REST_SECONDS, seconds)
                    await wait_for_event(self._freed, rest)
                    seconds -= rest
                await wait_for_event(self._look, seconds)
        finally:
            await self._stop_all()

    async def drain(self) -> None:
        """Starts no more jobs, and takes those that run off their processes, in order."""
        self._draining = True
        await self.commands.drain()

    # -- the queue -----------------------------------------------------------------------------------------------------

    async def _look_at_queue(self) -> None:
        try:
            self._orphans.requeue()
            while await self._launch_next():
                pass
        except ClusterLostError as error:
            _log.info("no job can be started: %s", error)
        except sqlite3.Error as error:
            _log.warning("the queue cannot be worked on, the next look follows: %s", error)
        except Exception:  # noqa: BLE001 (it may come right)
            _log.exception("the queue could not be worked on; the next look follows")

    async def _launch_next(self) -> bool:
        """Starts the next job that may start; whether another may follow."""
        self._waiting = [job for job in self._jobs.waiting() if self._is_startable(job.job_id)]
        if self._draining or not self._waiting:
            return False
        self._held = self._back_off.held(self._waiting)
        decision = self._admission.decide(self._waiting, await self._cluster.list_nodes(), self._clock(), self._held)
        for job_id, reason in decision.reasons.items():
            self._explain_waiting(job_id, reason)
        return await self._launch(decision.job, decision.workers) if decision.job else False

    async def _launch(self, waiting: Waiting, workers: int) -> bool:
        if damage := self._jobs.damage_of(waiting):
            return self._pass_by(waiting.job_id, damage)
        fleet = await self._cluster.reserve_cpus(workers, waiting.cpus_per_worker)
        if fleet is None:
            self._explain_waiting(waiting.job_id, "waits for CPUs that somebody else took")
            return False
        try:
            if not self._may_start(waiting):
                await fleet.stop()
                return not self._draining
            job = self._transitions.move(waiting.job_id, STARTING, "its processes are being started")
            attempt = self._attempt(job, fleet)
        except BaseException as error:
            if isinstance(error, sqlite3.Error):
                reason = f"waits until the service can write down that it starts ({error})"
                self._explain_waiting(waiting.job_id, reason)
            await fleet.stop()
            if isinstance(error, DatabaseRowError):
                return self._pass_by(waiting.job_id, error)
            raise
        task = asyncio.create_task(self._run_job(job.job_id, attempt, fleet), name=job.job_id)
        self._running.add(job.job_id, RunningJob(attempt, task))
        task.add_done_callback(lambda _: self._forget(job.job_id))
        return True

    def _pass_by(self, job_id: str, damage: DatabaseRowError) -> bool:
        """Nobody waits for a job that is damaged: another may follow."""
        _log.error("a job cannot be started: %s", damage)
        self._damaged.add(job_id)
        return True

    def _is_startable(self, job_id: str) -> bool:
        return self._running.is_free(job_id) and job_id not in self._damaged

    def _explain_waiting(self, job_id: str, reason: str) -> None:
        self._events.publish(WaitingExplained(job_id, reason))

    def _may_start(self, waiting: Waiting) -> bool:
        """Whether the job still waits for just these CPUs: clients may have changed their minds meanwhile."""
        return not self._draining and self._running.is_free(waiting.job_id) and waiting in self._jobs.waiting()

    def _longest_pause(self, job_id: str) -> float:
        try:
            job = self._jobs.get(job_id)
        except (DatabaseRowError, ServiceError):
            return 0.0  # it cannot be started, and nobody waits for it
        return pause_seconds(max(job.lost_attempts, job.lost_with_ray))

    def _seconds_to_next_look(self) -> float:
        """Until the next attempt of those jobs may follow that had to wait for that at the last look."""
        clock = self._clock()
        return min([_LOOK_SECONDS, *(max(due - clock, 0.0) for due in self._held.values())])

    # -- one job -------------------------------------------------------------------------------------------------------

    async def _run_job(self, job_id: str, attempt: AttemptLike, fleet: JobProcessesLike) -> None:
        try:
            await self._see_to_its_end(job_id, attempt)
        finally:
            await fleet.stop()

    async def _see_to_its_end(self, job_id: str, attempt: AttemptLike) -> None:
        """What came of it is written down before its processes are stopped: nobody can take it back any more."""
        try:
            ending = await attempt.run()
            failpoint("job.ending")
        except AttemptFailed as failure:
            lines = failure.error_lines
            self._transitions.move(job_id, FAILED, str(failure), failure_kind=failure.kind, last_error_lines=lines)
        except DamagedError as damage:
            # Another attempt would read the same.
            self._transitions.move(job_id, FAILED, str(damage), failure_kind=jobs_pb.FAILURE_KIND_ENVIRONMENT)
        except AttemptLost as loss:
            self._again(job_id, loss)
        except (OSError, sqlite3.Error) as error:
            _log.exception("job %s", job_id)
            self._again(job_id, AttemptLost(f"the service {_failed_at(error)}", cause="service"))
        except Exception:  # noqa: BLE001 (one job must not take the controller down)
            _log.exception("job %s failed in the service", job_id)
            self._transitions.move(job_id, FAILED, "the service failed at running it; its log says more")
        else:
            self._transitions.move(job_id, SUCCEEDED, ending.reason, model_id=ending.model_id)
            await attempt.clean_up()

    def _again(self, job_id: str, loss: AttemptLost) -> None:
        """Another attempt follows, unless too many were lost without any headway."""
        job = self._jobs.get(job_id)
        with_ray = loss.cause == "ray"
        lost = (job.lost_with_ray if with_ray else job.lost_attempts) + 1
        most = _MOST_LOST_WITH_RAY if with_ray else job.spec.limits.attempts
        count = "lost_with_ray" if with_ray else "lost_attempts"
        changes: dict[str, Any] = {count: lost, "last_error_lines": loss.error_lines}
        if lost >= most:
            changes["failure_kind"] = jobs_pb.FAILURE_KIND_LOST
            reason = _given_up(job, str(loss), lost, with_ray=with_ray)
            self._transitions.move(job_id, FAILED, reason, lost_cause=loss.cause, **changes)
            return
        pause = pause_seconds(lost)
        retry_time = Timestamp()
        retry_time.FromDatetime(self._now() + timedelta(seconds=pause))
        reason = f"{loss}; attempt {job.attempt + 1} follows in {pause:.0f} s"
        self._transitions.move(job_id, QUEUED, reason, lost_cause=loss.cause, retry_time=retry_time, **changes)

    def _forget(self, job_id: str) -> None:
        task = self._running.remove(job_id).task
        if not task.cancelled() and (error := task.exception()):
            if self._transitions.is_unwritten(job_id):
                _log.warning("job %s: what became of it cannot be written down yet: %s", job_id, error)
            else:
                _log.error("job %s: its end could not be written down; it is queued again", job_id, exc_info=error)
        self._freed.set()
        self.wake()

    async def _stop_all(self) -> None:
        tasks = self._running.tasks()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _failed_at(error: OSError | sqlite3.Error) -> str:
    """What the service failed at, as the end of a sentence: only some errors say that it was writing."""
    if isinstance(error, sqlite3.Error) or error.errno in _WRITING:
        return f"could not write: {error}"
    return f"could not read or write: {error}"


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
