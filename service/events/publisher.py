"""Event publisher: writes events of jobs into the store, then reports them to all subscribers."""

import logging
import sqlite3
from collections.abc import Callable
from typing import Any, TypeAlias

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from service.events.job_events import (
    AttemptResumed,
    CheckpointFailed,
    CheckpointWritten,
    HistoryExtended,
    JobDeleted,
    JobEvent,
    Notice,
    StateChanged,
    StepCoreChanged,
    WarningRaised,
    WorkerGone,
    WorkerJoined,
    WorkersChanged,
)
from service.stores.job_states import State
from service.stores.jobs import JobStore

__all__ = ["EventPublisher", "Subscriber"]

_log = logging.getLogger(__name__)

Subscriber: TypeAlias = Callable[[JobEvent], None]
"""Receives every event, in order, on the event loop. It must not raise."""


class EventPublisher:
    """The only way to publish an event of a job. Runs on the event loop.

    The store is the source of truth: subscribers receive an event only after it is written.
    """

    def __init__(self, jobs: JobStore, *subscribers: Subscriber) -> None:
        self._jobs = jobs
        self._subscribers = subscribers

    def create_job(
        self, spec: spec_pb.JobSpec, request_id: str, *, job_id: str = "", verifies: str = ""
    ) -> jobs_pb.Job:
        """Queues a job; see `JobStore.create`. A request id that was used before creates and publishes nothing."""
        if known := self._jobs.find_by_request(request_id):
            return known
        job = self._jobs.create(spec, request_id, job_id=job_id, verifies=verifies)
        self._report(StateChanged(job.job_id, job, jobs_pb.Job()))
        return job

    def move_job(self, job_id: str, state: State, reason: str, *, lost_cause: str = "", **changes: Any) -> jobs_pb.Job:
        """Moves a job to another state; see `JobStore.move`.

        Args:
            job_id: Id of the job.
            state: The new state.
            reason: Why, as a sentence.
            lost_cause: Part that the job lost its attempt with, one of LOSS_CAUSES; empty if it lost none.
            changes: Other fields of the job.

        Raises:
            ServiceError: NOT_FOUND, or WRONG_STATE if its state does not allow the move.
            sqlite3.Error: The move cannot be written.
        """
        previous = self._jobs.get(job_id)
        job = self._jobs.move(job_id, state, reason, **changes)
        self._report(StateChanged(job_id, job, previous, lost_cause))
        return job

    def change_workers(self, job_id: str, workers: int, message: str) -> jobs_pb.Job:
        """Changes how many workers a job asks for; see `JobStore.set_workers`."""
        job = self._jobs.set_workers(job_id, workers, message)
        self._report(WorkersChanged(job_id, workers))
        return job

    def delete_job(self, job_id: str) -> None:
        """Deletes a job that has ended, or is damaged; see `JobStore.delete`."""
        self._jobs.delete(job_id)
        self._report(JobDeleted(job_id))

    def publish(self, event: JobEvent) -> None:
        """Writes an event, if its kind is kept, and reports it.

        Raises:
            sqlite3.Error: The event cannot be written, and was not reported.
        """
        self._write(event)
        self._report(event)

    def publish_best_effort(self, event: Notice | AttemptResumed | CheckpointWritten | CheckpointFailed) -> None:
        """Publishes an event even if it cannot be written; then only the log has it."""
        try:
            self._write(event)
        except sqlite3.Error as error:
            _log.warning("job %s: %s (%s)", event.job_id, event.message, error)
        self._report(event)

    def _write(self, event: JobEvent) -> None:
        match event:
            case WorkerJoined():
                self._jobs.append_event(event.job_id, event.message, worker_joined=True)
            case WorkerGone():
                self._jobs.append_event(event.job_id, event.message, worker_joined=False)
            case StepCoreChanged():
                self._jobs.append_event(event.job_id, event.message, step_core=event.step_core)
            case HistoryExtended():
                self._jobs.append_history(event.job_id, event.epochs, event.steps)
            case WarningRaised():
                self._jobs.add_warning(event.job_id, event.warning)
            case CheckpointWritten():
                self._jobs.append_event(event.job_id, event.message, checkpoint=event.checkpoint.step)
            case Notice() | AttemptResumed() | CheckpointFailed() if event.message:
                self._jobs.append_event(event.job_id, event.message, notice=True)

    def _report(self, event: JobEvent) -> None:
        for receive in self._subscribers:
            receive(event)
