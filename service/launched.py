"""The jobs that this service has processes for, and the moves of all jobs."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nablad.v1 import jobs_pb2 as jobs_pb
from service.job_states import ENDED, PAUSED, QUEUED, State, state_name
from service.live import LiveJobs
from service.metrics.instruments import Instruments
from service.parts import AttemptLike
from service.recoveries import Recoveries
from service.stores.jobs import JobStore

__all__ = ["Launched", "LaunchedJobs", "Mover"]

_log = logging.getLogger(__name__)


class Mover:
    """Moves jobs between states, and tells those who look on."""

    def __init__(self, jobs: JobStore, live: LiveJobs, instruments: Instruments, recoveries: Recoveries) -> None:
        self._jobs = jobs
        self._live = live
        self._instruments = instruments
        self._recoveries = recoveries

    def __call__(self, job_id: str, state: State, reason: str, **changes: Any) -> jobs_pb.Job:
        """Moves a job; `changes` are other fields of it.

        Raises:
            ServiceError: NOT_FOUND, or WRONG_STATE when no such move leads from its present state.
        """
        job = self._jobs.move(job_id, state, reason, **changes)
        _log.info("job %s: %s", job_id, reason)
        if state in ENDED or state == PAUSED:
            self._recoveries.forget(job_id)
        if state in ENDED:
            self._instruments.jobs_ended.labels(state_name(state)).inc()
            self._live.end(job_id)
        elif state in (QUEUED, PAUSED):
            self._live.forget(job_id)
        else:
            self._live.ring(job_id)
        return job


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
