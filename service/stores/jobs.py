"""Jobs and their events."""

import secrets
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from service.errors import Reason, ServiceError
from service.job_states import ENDED, MOVES, State, state_name
from service.stores.database import NEWEST, Database

__all__ = ["JobStore"]


class JobStore:
    """The only writer of jobs: makes them, moves them between states, and numbers their events."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def create(self, spec: spec_pb.JobSpec, request_id: str) -> jobs_pb.Job:
        """Queues a job. A request id that was used before gives the job that it made."""
        if known := self.requested(request_id):
            return known
        job = jobs_pb.Job(
            job_id=f"{spec.name}-{secrets.token_hex(4)}",
            spec=spec,
            state=jobs_pb.JOB_STATE_QUEUED,
            reason="waits for its turn",
            create_time=self._timestamp(),
            update_time=self._timestamp(),
        )
        with self._database.transaction() as transaction:
            transaction.execute(
                "INSERT INTO jobs (job_id, request_id, state, body) VALUES (?, ?, ?, ?)",
                (job.job_id, request_id or None, job.state, job.SerializeToString()),
            )
            self._append(job, f"queued: {job.reason}", state=job.state)
        return job

    def requested(self, request_id: str) -> jobs_pb.Job | None:
        """The job that a request with this id made; None if there was none, or the id is empty."""
        return self._find("request_id", request_id) if request_id else None

    def get(self, job_id: str) -> jobs_pb.Job:
        """The job.

        Raises:
            ServiceError: NOT_FOUND.
        """
        job = self._find("job_id", job_id)
        if job is None:
            raise ServiceError(
                Reason.NOT_FOUND, f"there is no job {job_id!r}; `nabla job list` shows those there are", job_id=job_id
            )
        return job

    def page(self, before: int | None, limit: int, states: Collection[State]) -> tuple[list[jobs_pb.Job], int | None]:
        """At most `limit` jobs, newest first, older than number `before`; and the `before` of the next page, if any."""
        wanted = tuple(states or MOVES)
        marks = ", ".join("?" * len(wanted))
        query = (
            f"SELECT body, number FROM jobs WHERE number < ? AND state IN ({marks}) "  # noqa: S608 (only question marks)
            "ORDER BY number DESC"
        )
        bodies, rest = self._database.page(query, before or NEWEST, *wanted, limit=limit)
        return [jobs_pb.Job.FromString(body) for body in bodies], rest

    def in_states(self, states: Collection[State]) -> list[jobs_pb.Job]:
        """All jobs in some states, oldest first."""
        marks = ", ".join("?" * len(states))
        query = f"SELECT body FROM jobs WHERE state IN ({marks}) ORDER BY number"  # noqa: S608 (only question marks)
        return [jobs_pb.Job.FromString(body) for body in self._database.bodies(query, *states)]

    def counts(self) -> dict[State, int]:
        """Number of jobs in each state."""
        rows = self._database.rows("SELECT state, count(*) FROM jobs GROUP BY state")
        return dict.fromkeys(MOVES, 0) | dict(rows)

    def move(self, job_id: str, state: State, reason: str, *, model_id: str = "") -> jobs_pb.Job:
        """Moves a job into a state, with the reason as a sentence.

        Raises:
            ServiceError: NOT_FOUND, or WRONG_STATE when no such move leads from the job's present state.
        """
        with self._database.transaction():
            job = self.get(job_id)
            if state not in MOVES[job.state]:
                now = "has ended already" if job.state in ENDED else f"cannot become {state_name(state)} now"
                raise ServiceError(
                    Reason.WRONG_STATE,
                    f"job {job_id} {now}: it is {state_name(job.state)} ({job.reason})",
                    job_id=job_id,
                    state=state_name(job.state),
                )
            self._enter(job, state, reason)
            job.model_id = model_id
            self._save(job)
            self._append(job, f"{state_name(state)}: {reason}", state=state)
        return job

    def note(self, job_id: str, reason: str) -> None:
        """Says anew why the job is in its state, without a move."""
        with self._database.transaction():
            job = self.get(job_id)
            job.reason = reason
            self._save(job)

    def end_epochs(self, job_id: str, ends: Sequence[tuple[jobs_pb.Progress, str]]) -> None:
        """Keeps the figures of epochs, each with a sentence: as events, and the last ones with the job."""
        with self._database.transaction():
            job = self.get(job_id)
            for progress, message in ends:
                job.progress.CopyFrom(progress)
                self._append(job, message, epoch_end=progress)
            self._save(job)

    def worker_event(self, job_id: str, message: str, *, joined: bool) -> None:
        """Notes that a worker came or went."""
        with self._database.transaction():
            self._append(self.get(job_id), message, worker_joined=joined)

    def events(self, job_id: str, from_number: int, limit: int = 1000) -> Sequence[jobs_pb.Event]:
        """At most `limit` events of a job from a number on."""
        query = "SELECT body FROM events WHERE job_id = ? AND number >= ? ORDER BY number LIMIT ?"
        return [jobs_pb.Event.FromString(body) for body in self._database.bodies(query, job_id, from_number, limit)]

    def delete(self, job_id: str) -> None:
        """Forgets a job that has ended, and its events.

        Raises:
            ServiceError: NOT_FOUND, or WRONG_STATE when it has not ended.
        """
        with self._database.transaction() as transaction:
            job = self.get(job_id)
            if job.state not in ENDED:
                raise ServiceError(
                    Reason.WRONG_STATE,
                    f"job {job_id} is {state_name(job.state)}; only a job that has ended can be deleted: "
                    f"`nabla job cancel {job_id}` first",
                    job_id=job_id,
                    state=state_name(job.state),
                )
            transaction.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,))

    def _find(self, column: str, value: str) -> jobs_pb.Job | None:
        query = f"SELECT body FROM jobs WHERE {column} = ?"  # noqa: S608 (the column is one of two literals)
        bodies = self._database.bodies(query, value)
        return jobs_pb.Job.FromString(bodies[0]) if bodies else None

    def _enter(self, job: jobs_pb.Job, state: State, reason: str) -> None:
        job.state, job.reason = state, reason
        job.update_time.CopyFrom(self._timestamp())
        if state == jobs_pb.JOB_STATE_STARTING:
            job.attempt += 1
            job.ClearField("progress")
        if state == jobs_pb.JOB_STATE_RUNNING and not job.HasField("start_time"):
            job.start_time.CopyFrom(self._timestamp())
        if state in ENDED:
            job.end_time.CopyFrom(self._timestamp())

    def _save(self, job: jobs_pb.Job) -> None:
        self._database.rows(
            "UPDATE jobs SET state = ?, body = ? WHERE job_id = ?", job.state, job.SerializeToString(), job.job_id
        )

    def _append(self, job: jobs_pb.Job, message: str, **what: Any) -> None:
        ((last,),) = self._database.rows("SELECT coalesce(max(number), 0) FROM events WHERE job_id = ?", job.job_id)
        number = int(last) + 1
        event = jobs_pb.Event(number=number, time=self._timestamp(), attempt=job.attempt, message=message, **what)
        self._database.rows(
            "INSERT INTO events (job_id, number, body) VALUES (?, ?, ?)", job.job_id, number, event.SerializeToString()
        )

    def _timestamp(self) -> Timestamp:
        stamp = Timestamp()
        stamp.FromDatetime(self._now())
        return stamp
