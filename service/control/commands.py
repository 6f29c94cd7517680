"""Commands of clients on jobs (cancel, pause, resume, retry, scale, delete), and the drain at the service's end."""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Final

from nablad.v1 import jobs_pb2 as jobs_pb
from service.control.transitions import RunningJob, RunningJobs, Transitions
from service.errors import AttemptLost, Reason, ServiceError
from service.events.publisher import EventPublisher
from service.storage.reserve import is_full_disk
from service.stores.job_states import CANCELLED, ENDED, FAILED, PAUSED, QUEUED, State, state_name
from service.stores.jobs import JobStore

__all__ = ["Commands"]

_log = logging.getLogger(__name__)

# Time for a last checkpoint when a job is paused or the service stops. After it the previous one has to do.
_CHECKPOINT_SECONDS: Final = 60.0
# Expected result of another attempt, by the kind of the failure.
_RETRY_PROSPECTS: Final = {
    jobs_pb.FAILURE_KIND_DETERMINISTIC: ", and will end the same way unless the code or the machine is another one",
    jobs_pb.FAILURE_KIND_ENVIRONMENT: ", and will end the same way unless the cause was removed",
}


class Commands:
    """Executes the commands of clients on jobs."""

    def __init__(
        self,
        jobs: JobStore,
        events: EventPublisher,
        running: RunningJobs,
        transitions: Transitions,
        wake: Callable[[], None],
    ) -> None:
        """`wake` makes the controller reconcile the queue."""
        self._jobs = jobs
        self._events = events
        self._running = running
        self._transitions = transitions
        self._wake = wake

    async def cancel(self, job_id: str) -> jobs_pb.Job:
        """Cancels a job that has not ended, after its attempt has stopped."""
        return await _finish(self._withdraw(job_id, CANCELLED, "cancelled by a client"))

    async def pause(self, job_id: str) -> jobs_pb.Job:
        """Pauses a job: takes a checkpoint, and stops its processes."""
        return await _finish(self._withdraw(job_id, PAUSED, "paused by a client"))

    def resume(self, job_id: str) -> jobs_pb.Job:
        """Queues a paused job."""
        self._require(job_id, PAUSED, "only a paused job can be resumed")
        return self._queue(job_id, "resumed by a client: waits for its turn")

    def retry(self, job_id: str) -> jobs_pb.Job:
        """Queues a failed job, with a reason that says whether it will probably fail again."""
        failed = self._require(job_id, FAILED, "only a failed job can be tried again")
        return self._queue(
            job_id, f"tried again by a client{_RETRY_PROSPECTS.get(failed.failure_kind, '')}: waits for its turn"
        )

    async def scale(self, job_id: str, workers: int) -> jobs_pb.Job:
        """Changes the number of workers of a job that has not ended."""
        return await _finish(self._scale(job_id, workers))

    async def _scale(self, job_id: str, workers: int) -> jobs_pb.Job:
        self._write_unwritten(job_id)
        job = self._jobs.get(job_id)
        if job.state in ENDED:
            raise _wrong_state(job, "only the workers of a job that has not ended can be changed")
        before = job.spec.distribution.workers
        if workers == before:
            return job
        job = self._events.change_workers(job_id, workers, f"workers changed by a client from {before} to {workers}")
        if running := self._running.get(job_id):
            await running.attempt.scale_workers()
        self._wake()
        return job

    def delete(self, job_id: str) -> None:
        """Deletes a job that has ended, or is damaged, from the database."""
        self._events.delete_job(job_id)

    async def drain(self) -> None:
        """Takes a checkpoint of every running job, and queues it for the next start of the service."""
        leave = [self._withdraw(job_id, QUEUED, "the service goes away") for job_id in self._running.ids()]
        for outcome in await asyncio.gather(*leave, return_exceptions=True):
            if isinstance(outcome, BaseException):
                _log.error("could not stop a job in order; it goes on from its last checkpoint: %s", outcome)
        self._transitions.write_all_unwritten()

    async def _withdraw(self, job_id: str, state: State, reason: str) -> jobs_pb.Job:
        """Stops the processes of a job, after a checkpoint if it is to go on later, and moves it."""
        with self._running.withdrawing(job_id):
            if (moved := self._write_unwritten(job_id)) and moved.state == state:
                return moved
            if running := self._running.get(job_id):
                if state != CANCELLED:
                    reason = f"{reason}; {await _last_checkpoint(running)}"
                running.task.cancel()
                await asyncio.wait([running.task])
            try:
                job = self._transitions.move(job_id, state, reason)
            except sqlite3.Error as error:
                if self._transitions.is_unwritten(job_id) and is_full_disk(error):
                    raise _unwritten_error(job_id) from error
                raise
        self._wake()
        return job

    def _write_unwritten(self, job_id: str) -> jobs_pb.Job | None:
        """Writes the job's earlier move first, if it could not be written before.

        Raises:
            ServiceError: TOO_LARGE, if it still cannot be written.
        """
        try:
            return self._transitions.write_unwritten(job_id)
        except sqlite3.Error as error:
            if is_full_disk(error):
                raise _unwritten_error(job_id) from error
            raise

    def _queue(self, job_id: str, reason: str) -> jobs_pb.Job:
        job = self._transitions.move(job_id, QUEUED, reason)
        self._wake()
        return job

    def _require(self, job_id: str, state: State, rule: str) -> jobs_pb.Job:
        self._write_unwritten(job_id)
        job = self._jobs.get(job_id)
        if job.state != state:
            raise _wrong_state(job, rule)
        return job


async def _last_checkpoint(running: RunningJob) -> str:
    """Takes a last checkpoint, and returns where the job goes on, as a sentence."""
    try:
        async with asyncio.timeout(_CHECKPOINT_SECONDS):
            checkpoint = await running.attempt.checkpoint()
    except (OSError, sqlite3.Error, TimeoutError, AttemptLost) as error:
        _log.warning("could not take a checkpoint of job %s: %s", running.task.get_name(), error)
        return "no checkpoint could be taken: it goes on from the one before"
    return f"it goes on from step {checkpoint.step}" if checkpoint else "it goes on from its last checkpoint, if any"


async def _finish(work: Awaitable[jobs_pb.Job]) -> jobs_pb.Job:
    """Runs `work` as a task of its own, so that it finishes even if the client disconnects."""
    return await asyncio.shield(asyncio.ensure_future(work))


def _unwritten_error(job_id: str) -> ServiceError:
    return ServiceError(
        Reason.TOO_LARGE,
        f"job {job_id} has no processes any more, but what became of it cannot be written down, because the service's "
        "disk is full: make room there, and it is written at once",
        job_id=job_id,
    )


def _wrong_state(job: jobs_pb.Job, rule: str) -> ServiceError:
    return ServiceError(
        Reason.WRONG_STATE,
        f"{rule}; job {job.job_id} is {state_name(job.state)} ({job.reason})",
        job_id=job.job_id,
        state=state_name(job.state),
    )
