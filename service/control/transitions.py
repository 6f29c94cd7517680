"""The jobs that this service has processes for, and the moves of all jobs."""

import asyncio
import logging
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nablad.v1 import jobs_pb2 as jobs_pb
from service.cluster.interfaces import AttemptLike
from service.control.recoveries import Recoveries
from service.errors import DamagedError, ServiceError
from service.events.live_status import LiveJobs
from service.metrics.instruments import Instruments
from service.stores.job_states import ENDED, LAUNCHED, PAUSED, QUEUED, State, state_name
from service.stores.jobs import JobStore

__all__ = ["Launched", "LaunchedJobs", "Mover"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Move:
    """One that is to be made.

    Attributes:
        state: The new state.
        reason: Why, as a sentence.
        lost: What the job lost its attempt with, one of CAUSES; empty if it lost none.
        changes: Other fields of the job.
    """

    state: State
    reason: str
    lost: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)


class Mover:
    """Moves jobs between states, and tells those who look on.

    What became of a job that has no processes any more, and could not be written down, is kept until it can be.
    """

    def __init__(self, jobs: JobStore, live: LiveJobs, instruments: Instruments, recoveries: Recoveries) -> None:
        self._jobs = jobs
        self._live = live
        self._instruments = instruments
        self._recoveries = recoveries
        self._unwritten: dict[str, _Move] = {}

    def __call__(self, job_id: str, state: State, reason: str, *, lost: str = "", **changes: Any) -> jobs_pb.Job:
        """Moves a job.

        Args:
            job_id: Which.
            state: The new state.
            reason: Why, as a sentence.
            lost: What it lost its attempt with, one of CAUSES; empty if it lost none.
            changes: Other fields of the job.

        Raises:
            ServiceError: NOT_FOUND, or WRONG_STATE when no such move leads from its present state.
            sqlite3.Error: It cannot be written. If the job was on its processes, `settle` tries again.
        """
        return self._make(job_id, _Move(state, reason, lost, changes))

    def settle(self, job_id: str) -> jobs_pb.Job | None:
        """Writes down what became of a job, if that could not be done before.

        Returns:
            The job, if it was moved.

        Raises:
            sqlite3.Error: It cannot be written yet.
        """
        move = self._unwritten.get(job_id)
        return self._make(job_id, move) if move else None

    def settle_all(self) -> None:
        """Writes down what became of all jobs of which that could not be done before, as far as it can be.

        What cannot be written even now is logged.
        """
        for job_id, move in list(self._unwritten.items()):
            try:
                self._make(job_id, move)
            except (sqlite3.Error, DamagedError, ServiceError) as error:
                _log.error("job %s: that it is %s is lost: %s", job_id, state_name(move.state), error)

    def is_unwritten(self, job_id: str) -> bool:
        """Returns whether it is still to be written down what became of a job."""
        return job_id in self._unwritten

    def _make(self, job_id: str, move: _Move) -> jobs_pb.Job:
        try:
            job = self._jobs.move(job_id, move.state, move.reason, **move.changes)
        except sqlite3.Error as error:
            if move.state not in LAUNCHED and self._jobs.get(job_id).state in LAUNCHED:
                self._unwritten[job_id] = move
                self._live.explain_end(job_id, f"{move.reason} (not written down yet: {error})")
            raise
        self._unwritten.pop(job_id, None)
        _log.info("job %s: %s", job_id, move.reason)
        self._tell(job_id, move.state, move.lost)
        return job

    def _tell(self, job_id: str, state: State, lost: str) -> None:
        if state in ENDED or state == PAUSED:
            self._recoveries.forget(job_id)
        if lost:
            self._recoveries.lost(job_id, lost, another_follows=state == QUEUED)
        if state in ENDED:
            self._instruments.jobs_ended.labels(state_name(state)).inc()
            self._live.end(job_id)
        elif state in (QUEUED, PAUSED):
            self._live.forget(job_id)
        else:
            self._live.ring(job_id)


@dataclass(frozen=True)
class Launched:
    """A job with processes: its attempt, and the task that sees it to its end."""

    attempt: AttemptLike
    task: "asyncio.Task[None]"


class LaunchedJobs:
    """Who has processes, and whom somebody is just taking them from."""

    def __init__(self) -> None:
        self._launched: dict[str, Launched] = {}
        self._withdrawing: Counter[str] = Counter()

    def add(self, job_id: str, launched: Launched) -> None:
        """A job has processes from now on."""
        self._launched[job_id] = launched

    def remove(self, job_id: str) -> Launched:
        """It has none any more."""
        return self._launched.pop(job_id)

    def get(self, job_id: str) -> Launched | None:
        """The job, if it has processes."""
        return self._launched.get(job_id)

    def ids(self) -> list[str]:
        """All jobs with processes."""
        return list(self._launched)

    def tasks(self) -> "list[asyncio.Task[None]]":
        """Those of all jobs with processes."""
        return [launched.task for launched in self._launched.values()]

    def is_free(self, job_id: str) -> bool:
        """Whether nobody has to do with the job at this moment."""
        return job_id not in self._launched and not self._withdrawing[job_id]

    @contextmanager
    def withdrawing(self, job_id: str) -> Iterator[None]:
        """Nobody launches the job in this block."""
        self._withdrawing[job_id] += 1
        try:
            yield
        finally:
            self._withdrawing[job_id] -= 1
            if not self._withdrawing[job_id]:
                del self._withdrawing[job_id]
