"""Jobs, with their events, history and receipts."""

import logging
import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from service.errors import DatabaseRowError, Reason, ServiceError
from service.storage.digests import is_intact
from service.stores.job_reader import JobReader, Waiting, datasets_of
from service.stores.job_states import (
    ENDED,
    FAILED,
    MOVES,
    PAUSED,
    QUEUED,
    RUNNING,
    STARTING,
    State,
    state_name,
    stops_work,
)
from service.stores.tables import EVENTS, HISTORY, JOBS, RECEIPTS
from workers.runtime.failpoints import failpoint

__all__ = ["JobStore", "Waiting"]

_log = logging.getLogger(__name__)

# Rows that are deleted at a time: a transaction takes as much room on the disk as the rows that it deletes.
_ROWS_AT_A_TIME: Final = 2000

_TABLES_OF_JOBS: Final = {"events": "number", "history": "kind, step", "receipts": "job_id"}
"""Tables with rows of jobs, and what tells the rows of one job apart."""

_Result = TypeVar("_Result")


class JobStore(JobReader):
    """The only writer of jobs: makes them, moves them between states, and keeps what they leave."""

    def new_id(self, spec: spec_pb.JobSpec) -> str:
        """An id that no job has, for one with this spec."""
        return f"{spec.name}-{secrets.token_hex(4)}"

    def create(self, spec: spec_pb.JobSpec, request_id: str, *, job_id: str = "", verifies: str = "") -> jobs_pb.Job:
        """Queues a job. A request id that was used before gives the job that it made.

        Args:
            spec: Completed.
            request_id: Of the client; may be empty.
            job_id: From `new_id`, if it had to be known before; else a new one.
            verifies: Id of the job whose weights this one is compared with; empty for a job of its own.
        """
        if known := self.requested(request_id):
            return known
        job = jobs_pb.Job(
            job_id=job_id or self.new_id(spec),
            spec=spec,
            state=QUEUED,
            reason="waits for its turn",
            create_time=self._timestamp(),
            update_time=self._timestamp(),
            verifies=verifies,
        )
        with self._database.transaction():
            self._insert(job, request_id)
            self._events.append(job, f"queued: {job.reason}", state=job.state)
            failpoint("job.committing")
        failpoint("job.committed")
        self._datasets[job.job_id] = datasets_of(spec)
        return job

    def move(self, job_id: str, state: State, reason: str, **changes: Any) -> jobs_pb.Job:
        """Moves a job into a state; where that stops work, also on a full disk.

        Args:
            job_id: Which.
            state: The new one.
            reason: Why, as a sentence.
            changes: Fields of the job that change with it, by name; None clears one. `retry_time` holds until the next
                move.

        Raises:
            ServiceError: NOT_FOUND, or WRONG_STATE when no such move leads from the job's present state.
        """

        def write() -> jobs_pb.Job:
            with self._database.transaction():
                job = self.get(job_id)
                if state not in MOVES[job.state]:
                    now = (
                        "has ended already:" if job.state in ENDED else f"cannot become {state_name(state)} now: it is"
                    )
                    raise _wrong_state(job, f"job {job_id} {now} {state_name(job.state)} ({job.reason})")
                self._enter(job, state, reason)
                _change(job, changes)
                self._events.append(job, f"{state_name(state)}: {reason}", state=state)
                self._save(job)
            return job

        return self._write(write, urgent=stops_work(self.get(job_id).state, state))

    def set_workers(self, job_id: str, workers: int, message: str) -> jobs_pb.Job:
        """Changes how many workers a job asks for, and says so in an event; fewer of them also on a full disk.

        Raises:
            ServiceError: NOT_FOUND, or WRONG_STATE when it has ended.
        """

        def write() -> jobs_pb.Job:
            with self._database.transaction():
                job = self.get(job_id)
                if job.state in ENDED:
                    sentence = f"job {job_id} is {state_name(job.state)}: it has no workers any more"
                    raise _wrong_state(job, sentence)
                job.spec.distribution.workers = workers
                self._save(job)
                self._events.append(job, message, notice=True)
            return job

        return self._write(write, urgent=workers < self.get(job_id).spec.distribution.workers)

    def rebuild_indexes(self) -> None:
        """Makes the queue, and what jobs are found by, anew from the jobs: indexes have no digests."""
        JOBS.rebuild_indexes(self._database)

    def forget_losses(self, job_id: str, *, proven: bool = False) -> None:
        """The job made headway: attempts that were lost before do not count any more.

        Args:
            job_id: Which.
            proven: Whether the service has been up beside it for so long that ends of the service do not count either.
        """
        with self._database.transaction():
            job = self.get(job_id)
            if job.lost_attempts or job.lost_with_ray or (proven and job.lost_with_service):
                job.lost_attempts = job.lost_with_ray = 0
                if proven:
                    job.lost_with_service = 0
                self._save(job)

    # -- what it leaves ------------------------------------------------------------------------------------------------

    def event(self, job_id: str, message: str, **what: Any) -> None:
        """Notes what happened to a job; `what` is the field of `Event.what` that it is, if it is one."""
        with self._database.transaction():
            self._events.append(self.get(job_id), message, **what)

    def keep_figures(
        self,
        job_id: str,
        epoch_ends: Sequence[tuple[jobs_pb.Progress, jobs_pb.HistoryPoint, str]],
        steps: Sequence[jobs_pb.HistoryPoint],
    ) -> None:
        """Keeps figures: those of epochs, each with a sentence, as events too, and the last ones with the job."""
        with self._database.transaction():
            job = self.get(job_id)
            for progress, _, message in epoch_ends:
                job.progress.CopyFrom(progress)
                self._events.append(job, message, epoch_end=progress)
            self._history.keep(job_id, jobs_pb.HISTORY_KIND_EPOCHS, [point for _, point, _ in epoch_ends])
            self._history.keep(job_id, jobs_pb.HISTORY_KIND_STEPS, steps)
            if epoch_ends:
                self._save(job)

    def add_warning(self, job_id: str, warning: jobs_pb.JobWarning) -> None:
        """Keeps a warning with the job, as an event too; once, however often it is told."""
        with self._database.transaction():
            job = self.get(job_id)
            if any(known.kind == warning.kind for known in job.warnings):
                return
            job.warnings.append(warning)
            self._save(job)
            self._events.append(job, f"warning: {warning.message}", warning=warning.kind)

    def rewind(self, job_id: str, step: int) -> None:
        """Forgets the history and the warnings beyond a step: the job goes on from there."""
        with self._database.transaction():
            self._history.drop_after(job_id, step)
            job = self.get(job_id)
            kept = [warning for warning in job.warnings if warning.step <= step]
            if len(kept) < len(job.warnings):
                del job.warnings[:]
                job.warnings.extend(kept)
                self._save(job)

    def keep_receipt(self, receipt: jobs_pb.Receipt) -> None:
        """Keeps a receipt, or what is known of it, in place of the one before; a whole one also on a full disk."""
        self._write(partial(self._receipts.keep, receipt), urgent=bool(receipt.final_weights_sha256))

    def delete(self, job_id: str) -> None:
        """Forgets a job that has ended, or is damaged, with all that it left here; also on a full disk.

        Raises:
            ServiceError: NOT_FOUND, or WRONG_STATE when it has not ended.
        """

        def forget() -> None:
            with self._database.transaction() as transaction:
                try:
                    job = self.get(job_id)
                except DatabaseRowError:
                    job = None
                if job is not None and job.state not in ENDED:
                    raise _wrong_state(
                        job,
                        f"job {job_id} is {state_name(job.state)}; only a job that has ended can be deleted: "
                        f"`nabla job cancel {job_id}` first",
                    )
                transaction.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,))

        with self._database.without_cascade():
            self._database.with_reserve(forget)
        self._drop_rows(job_id)

    def drop_orphans(self) -> None:
        """Removes what a crash left of jobs that were being deleted; damaged rows, which may be another job's, stay."""
        for job_id in self._orphans():
            if self._is_whole(job_id):
                _log.warning("removing what job %s, which was deleted, left in the database", job_id)
                self._drop_rows(job_id)
            else:
                _log.error(
                    "rows of job %a, which is not there, are damaged in the database: see `nablad check`", job_id
                )

    def _write(self, write: Callable[[], _Result], *, urgent: bool) -> _Result:
        return self._database.with_reserve(write) if urgent else write()

    def _orphans(self) -> set[str]:
        """Returns the ids of jobs that left rows and are not there; looks into each table once for each job."""
        return {
            str(job_id)
            for table in _TABLES_OF_JOBS
            for (job_id,) in self._database.rows(
                f"WITH RECURSIVE ids (job_id) AS (SELECT min(job_id) FROM {table} UNION ALL "  # noqa: S608 (our names)
                f"SELECT (SELECT min(job_id) FROM {table} WHERE job_id > ids.job_id) FROM ids WHERE job_id NOTNULL) "
                "SELECT job_id FROM ids WHERE job_id NOTNULL AND job_id NOT IN (SELECT job_id FROM jobs)"
            )
        }

    def _is_whole(self, job_id: str) -> bool:
        """Returns whether the rows under an id are what was written: none of them came to it by damage."""
        try:
            job_id.encode()
        except UnicodeEncodeError:
            return False
        tables = (EVENTS, HISTORY, RECEIPTS)
        rows = (row for table in tables for row in table.iterate(self._database, "WHERE job_id = ?", job_id))
        return all(map(is_intact, rows))

    def _drop_rows(self, job_id: str) -> None:
        """Removes what a job that is not there any more left, piece by piece."""
        try:
            for table, key in _TABLES_OF_JOBS.items():
                while self._database.with_reserve(partial(self._drop_some, table, key, job_id)):
                    pass
        except (sqlite3.Error, DatabaseRowError) as error:
            _log.warning("what the deleted job %s left in the database goes at the next start: %s", job_id, error)

    def _drop_some(self, table: str, key: str, job_id: str) -> int:
        """Returns how many rows went."""
        query = (
            f"DELETE FROM {table} WHERE job_id = ?1 AND ({key}) IN "  # noqa: S608 (our names)
            f"(SELECT {key} FROM {table} WHERE job_id = ?1 LIMIT {_ROWS_AT_A_TIME})"
        )
        with self._database.transaction() as transaction:
            return transaction.execute(query, (job_id,)).rowcount

    def _enter(self, job: jobs_pb.Job, state: State, reason: str) -> None:
        if job.state in (FAILED, PAUSED):
            job.ClearField("lost_with_service")
        if job.state == FAILED:
            for field in ("end_time", "lost_attempts", "lost_with_ray", "last_error_lines", "failure_kind"):
                job.ClearField(field)
        job.state, job.reason = state, reason
        job.update_time.CopyFrom(self._timestamp())
        job.ClearField("retry_time")
        if state == STARTING:
            job.attempt += 1
        if state == RUNNING and not job.HasField("start_time"):
            job.start_time.CopyFrom(self._timestamp())
        if state in ENDED:
            job.end_time.CopyFrom(self._timestamp())

    def _insert(self, job: jobs_pb.Job, request_id: str) -> None:
        number = JOBS.next_number(self._database)
        JOBS.insert(self._database, {"number": number, "request_id": request_id or None, **_NOTHING, **_columns(job)})

    def _save(self, job: jobs_pb.Job) -> None:
        query = "SELECT number, request_id FROM jobs WHERE job_id = ?"
        ((number, request_id),) = self._database.rows(query, job.job_id)
        left = self._leaves(job.job_id) if job.state in ENDED else _NOTHING
        JOBS.update(self._database, {"number": number, "request_id": request_id, **left, **_columns(job)})

    def _leaves(self, job_id: str) -> Mapping[str, int]:
        """How much there is of a job beside its row: see `JobReader`."""
        return {
            "events": self._events.last(job_id),
            "points": self._history.count(job_id),
            "receipts": self._receipts.count(job_id),
        }


# As long as a job has not ended.
_NOTHING: Mapping[str, int] = {"events": 0, "points": 0, "receipts": 0}


def _columns(job: jobs_pb.Job) -> dict[str, object]:
    """The job, and beside it what is looked for without reading it."""
    distribution = job.spec.distribution
    return {
        "job_id": job.job_id,
        "state": job.state,
        "priority": job.spec.priority,
        "workers": distribution.workers,
        "cpus_per_worker": distribution.cpus_per_worker,
        "retry_time": job.retry_time.ToNanoseconds() / 1e9,
        "attempt": job.attempt,
        "update_time": job.update_time.ToNanoseconds() / 1e9,
        "body": job.SerializeToString(),
    }


def _change(job: jobs_pb.Job, changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        if value is None:
            job.ClearField(name)  # type: ignore[arg-type]  # the stubs list every name as a literal
        elif isinstance(value, Message):
            getattr(job, name).CopyFrom(value)
        else:
            setattr(job, name, value)


def _wrong_state(job: jobs_pb.Job, sentence: str) -> ServiceError:
    return ServiceError(Reason.WRONG_STATE, sentence, job_id=job.job_id, state=state_name(job.state))
