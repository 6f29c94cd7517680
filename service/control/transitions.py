"""Transitions of jobs between states, and the registry of running jobs, those with processes of this service."""

import asyncio
import logging
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nablad.v1 import jobs_pb2 as jobs_pb
from service.control.interfaces import AttemptLike
from service.errors import DamagedError, ServiceError
from service.events.job_events import EndUnwritten
from service.events.publisher import EventPublisher
from service.stores.job_states import ACTIVE, State, state_name
from service.stores.jobs import JobStore

__all__ = ["RunningJob", "RunningJobs", "Transitions"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Transition:
    """A move that is to be made; see `Transitions.move`."""

    state: State
    reason: str
    lost_cause: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)


class Transitions:
    """Moves jobs between states.

    If a job has lost its processes and its move cannot be written, the move is kept until it can be.
    """

    def __init__(self, jobs: JobStore, events: EventPublisher) -> None:
        self._jobs = jobs
        self._events = events
        self._unwritten: dict[str, _Transition] = {}

    def move(self, job_id: str, state: State, reason: str, *, lost_cause: str = "", **changes: Any) -> jobs_pb.Job:
        """Moves a job; see `EventPublisher.move_job`.

        Raises:
            ServiceError: NOT_FOUND, or WRONG_STATE if its state does not allow the move.
            sqlite3.Error: The move cannot be written. If the job was active, `write_unwritten` tries again.
        """
        return self._make(job_id, _Transition(state, reason, lost_cause, changes))

    def write_unwritten(self, job_id: str) -> jobs_pb.Job | None:
        """Writes the job's move that could not be written before, if there is one.

        Returns:
            The job, if it was moved.

        Raises:
            sqlite3.Error: The move cannot be written yet.
        """
        transition = self._unwritten.get(job_id)
        return self._make(job_id, transition) if transition else None

    def write_all_unwritten(self) -> None:
        """Writes all moves that could not be written before, and logs those that still cannot be."""
        for job_id, transition in list(self._unwritten.items()):
            try:
                self._make(job_id, transition)
            except (sqlite3.Error, DamagedError, ServiceError) as error:
                _log.error("job %s: could not write that it is %s: %s", job_id, state_name(transition.state), error)

    def is_unwritten(self, job_id: str) -> bool:
        """Returns whether a move of the job is still to be written."""
        return job_id in self._unwritten

    def _make(self, job_id: str, transition: _Transition) -> jobs_pb.Job:
        state, reason = transition.state, transition.reason
        try:
            job = self._events.move_job(job_id, state, reason, lost_cause=transition.lost_cause, **transition.changes)
        except sqlite3.Error as error:
            if state not in ACTIVE and self._jobs.get(job_id).state in ACTIVE:
                self._unwritten[job_id] = transition
                self._events.publish(EndUnwritten(job_id, f"{reason} (not written down yet: {error})"))
            raise
        self._unwritten.pop(job_id, None)
        _log.info("job %s: %s", job_id, reason)
        return job


@dataclass(frozen=True)
class RunningJob:
    """A job with processes: its attempt, and the task that follows it to its end."""

    attempt: AttemptLike
    task: "asyncio.Task[None]"


class RunningJobs:
    """Registry of jobs with processes, and of jobs whose processes are being withdrawn."""

    def __init__(self) -> None:
        self._running: dict[str, RunningJob] = {}
        self._withdrawing: Counter[str] = Counter()

    def add(self, job_id: str, job: RunningJob) -> None:
        """Registers a job that has processes from now on."""
        self._running[job_id] = job

    def remove(self, job_id: str) -> RunningJob:
        """Unregisters a job that has no processes any more."""
        return self._running.pop(job_id)

    def get(self, job_id: str) -> RunningJob | None:
        """Returns the job, if it has processes."""
        return self._running.get(job_id)

    def ids(self) -> list[str]:
        """Returns the ids of all jobs with processes."""
        return list(self._running)

    def tasks(self) -> "list[asyncio.Task[None]]":
        """Returns the tasks of all jobs with processes."""
        return [job.task for job in self._running.values()]

    def is_free(self, job_id: str) -> bool:
        """Returns whether a job has no processes, and is not being withdrawn."""
        return job_id not in self._running and not self._withdrawing[job_id]

    @contextmanager
    def withdrawing(self, job_id: str) -> Iterator[None]:
        """Prevents the start of a job in this block."""
        self._withdrawing[job_id] += 1
        try:
            yield
        finally:
            self._withdrawing[job_id] -= 1
            if not self._withdrawing[job_id]:
                del self._withdrawing[job_id]
