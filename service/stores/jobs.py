"""Job store: writes jobs, with their events, history and receipts."""

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
from service.stores.job_reader import JobReader, QueuedJob, datasets_of
from service.stores.job_states import (
    ENDED,
    FAILED,
    PAUSED,
    QUEUED,
    RUNNING,
    STARTING,
    TRANSITIONS,
    State,
    state_name,
    stops_work,
)
from service.stores.tables import EVENTS, HISTORY, JOBS, RECEIPTS
from workers.runtime.failpoints import failpoint

__all__ = ["JobStore", "QueuedJob"]

_log = logging.getLogger(__name__)

# Rows that are deleted at a time: a transaction takes as much room on the disk as the rows that it deletes.
_ROWS_AT_A_TIME: Final = 2000

_TABLES_OF_JOBS: Final = {"events": "number", "history": "kind, step", "receipts": "job_id"}
"""Tables with rows of jobs, and the columns that identify a row of one job."""

_Result = TypeVar("_Result")


class JobStore(JobReader):
    """The only writer of jobs: creates them, moves them between states, and writes their events and history."""

    def new_job_id(self, spec: spec_pb.JobSpec) -> str:
        """Returns an unused id for a job with this spec."""
        return f"{spec.name}-{secrets.token_hex(4)}"

    def create(self, spec: spec_pb.JobSpec, request_id: str, *, job_id: str = "", verifies: str = "") -> jobs_pb.Job:
        """Creates a job in state QUEUED. For a known request id, returns the job that it created.

        Args:
            spec: The completed spec.
            request_id: Request id of the client; may be empty.
            job_id: From `new_id`, if it had to be known before; else a new one.
            verifies: Id of the job whose weights this one is compared with; empty for a job of its own.
        """
        if known := self.find_by_request(request_id):
            return known
        job = jobs_pb.Job(
            job_id=job_id or self.new_job_id(spec),
            spec=spec,
            state=QUEUED,
            reason="waits for its turn",
            create_time=self._timestamp(),
            update_time=self._timestamp(),
            verifies=verifies,
        )
        with self._database.transaction():
            self._insert(job, request_id)
            self._events.append_event(job, f"queued: {job.reason}", state=job.state)
            failpoint("job.committing")
        failpoint("job.committed")
        self._datasets[job.job_id] = datasets_of(spec)
        return job

    def move(self, job_id: str, state: State, reason: str, **changes: Any) -> jobs_pb.Job:
        """Moves a job into a state. A move that stops work succeeds even on a full disk.

        Args:
            job_id: Id of the job.
            state: The new state.
            reason: Why, as a sentence.
            changes: Fields of the job that change with it, by name; None clears one. `retry_time` holds until the next
                move.

        Raises:
            ServiceError: NOT_FOUND, or WRONG_STATE when no such move leads from the job's present state.
        """

        def write() -> jobs_pb.Job:
            with self._database.transaction():
                job = self.get(job_id)
                if state not in TRANSITIONS[job.state]:
                    now = (
                        "has ended already:" if job.state in ENDED else f"cannot become {state_name(state)} now: it is"
                    )
                    raise _wrong_state(job, f"job {job_id} {now} {state_name(job.state)} ({job.reason})")
                self._enter(job, state, reason)
                _change(job, changes)
                self._events.append_event(job, f"{state_name(state)}: {reason}", state=state)
                self._save(job)
            return job

        return self._write(write, urgent=stops_work(self.get(job_id).state, state))

    def set_workers(self, job_id: str, workers: int, message: str) -> jobs_pb.Job:
        """Changes the number of workers, and adds an event. Scaling down succeeds even on a full disk.

        Raises:
            ServiceError: NOT_FOUND, or WRONG_STATE if it has ended.
        """

        def write() -> jobs_pb.Job:
            with self._database.transaction():
                job = self.get(job_id)
                if job.state in ENDED:
                    sentence = f"job {job_id} is {state_name(job.state)}: it has no workers any more"
                    raise _wrong_state(job, sentence)
                job.spec.distribution.workers = workers
                self._save(job)
                self._events.append_event(job, message, notice=True)
            return job

        return self._write(write, urgent=workers < self.get(job_id).spec.distribution.workers)

    def rebuild_indexes(self) -> None:
        """Rebuilds the indexes, the queue among them, from the rows, because indexes have no digests."""
        JOBS.rebuild_indexes(self._database)

    def reset_lost_attempts(self, job_id: str, *, proven: bool = False) -> None:
        """Resets the counts of lost attempts, because the job has a newer checkpoint.

        Args:
            job_id: Id of the job.
            proven: Whether the attempt has run for so long that crashes of the service do not count either.
        """
        with self._database.transaction():
            job = self.get(job_id)
            if job.lost_attempts or job.lost_with_ray or (proven and job.lost_with_service):
                job.lost_attempts = job.lost_with_ray = 0
                if proven:
                    job.lost_with_service = 0
                self._save(job)

    # -- events and history --------------------------------------------------------------------------------------------

    def append_event(self, job_id: str, message: str, **what: Any) -> None:
        """Adds an event to a job. `what` is the field of the oneof `Event.what` that is set, if any."""
        with self._database.transaction():
            self._events.append_event(self.get(job_id), message, **what)

    def append_history(
        self,
        job_id: str,
        epoch_ends: Sequence[tuple[jobs_pb.Progress, jobs_pb.HistoryPoint, str]],
        steps: Sequence[jobs_pb.HistoryPoint],
    ) -> None:
        """Adds points of the history. Ends of epochs also become events, and the last one the job's progress."""
        with self._database.transaction():
            job = self.get(job_id)
            for progress, _, message in epoch_ends:
                job.progress.CopyFrom(progress)
                self._events.append_event(job, message, epoch_end=progress)
            self._history.save_points(job_id, jobs_pb.HISTORY_KIND_EPOCHS, [point for _, point, _ in epoch_ends])
            self._history.save_points(job_id, jobs_pb.HISTORY_KIND_STEPS, steps)
            if epoch_ends:
                self._save(job)

    def add_warning(self, job_id: str, warning: jobs_pb.JobWarning) -> None:
        """Adds a warning to the job, and an event; only once for each kind."""
        with self._database.transaction():
            job = self.get(job_id)
            if any(known.kind == warning.kind for known in job.warnings):
                return
            job.warnings.append(warning)
            self._save(job)
            self._events.append_event(job, f"warning: {warning.message}", warning=warning.kind)

    def rewind_history(self, job_id: str, step: int) -> None:
        """Deletes history and warnings beyond a step, because the job goes on from there."""
        with self._database.transaction():
            self._history.drop_after(job_id, step)
            job = self.get(job_id)
            kept = [warning for warning in job.warnings if warning.step <= step]
            if len(kept) < len(job.warnings):
                del job.warnings[:]
                job.warnings.extend(kept)
                self._save(job)

    def save_receipt(self, receipt: jobs_pb.Receipt) -> None:
        """Writes a receipt in place of the previous one. A complete one is written even on a full disk."""
        self._write(partial(self._receipts.save_receipt, receipt), urgent=bool(receipt.final_weights_sha256))

    def delete(self, job_id: str) -> None:
        """Deletes a job that has ended, or is damaged, with its rows in all tables, even on a full disk.

        Raises:
            ServiceError: NOT_FOUND, or WRONG_STATE if it has not ended.
        """

        def delete_row() -> None:
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
            self._database.with_reserve(delete_row)
        self._delete_rows(job_id)

    def delete_orphaned_rows(self) -> None:
        """Deletes the rows of jobs whose deletion a crash interrupted. Damaged rows stay."""
        for job_id in self._orphaned_job_ids():
            if self._is_whole(job_id):
                _log.warning("deleting the rows that the deleted job %s left", job_id)
                self._delete_rows(job_id)
            else:
                _log.error("rows of the missing job %a are damaged in the database: run `nablad check`", job_id)

    def _write(self, write: Callable[[], _Result], *, urgent: bool) -> _Result:
        return self._database.with_reserve(write) if urgent else write()

    def _orphaned_job_ids(self) -> set[str]:
        """Returns the ids that have rows but no job, with one index search per id and table."""
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
        """Returns whether all rows of an id are intact, so that none of them has the id by damage."""
        try:
            job_id.encode()
        except UnicodeEncodeError:
            return False
        tables = (EVENTS, HISTORY, RECEIPTS)
        rows = (row for table in tables for row in table.iterate(self._database, "WHERE job_id = ?", job_id))
        return all(map(is_intact, rows))

    def _delete_rows(self, job_id: str) -> None:
        """Deletes the rows of a deleted job in portions."""
        try:
            for table, key in _TABLES_OF_JOBS.items():
                while self._database.with_reserve(partial(self._delete_portion, table, key, job_id)):
                    pass
        except (sqlite3.Error, DatabaseRowError) as error:
            _log.warning("could not delete all rows of job %s, the next start tries again: %s", job_id, error)

    def _delete_portion(self, table: str, key: str, job_id: str) -> int:
        """Deletes some rows, and returns how many."""
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
        JOBS.insert(self._database, {"number": number, "request_id": request_id or None, **_NO_ROWS, **_columns(job)})

    def _save(self, job: jobs_pb.Job) -> None:
        query = "SELECT number, request_id FROM jobs WHERE job_id = ?"
        ((number, request_id),) = self._database.rows(query, job.job_id)
        left = self._count_rows(job.job_id) if job.state in ENDED else _NO_ROWS
        JOBS.update(self._database, {"number": number, "request_id": request_id, **left, **_columns(job)})

    def _count_rows(self, job_id: str) -> Mapping[str, int]:
        """Returns the number of rows of a job in other tables; see `JobReader`."""
        return {
            "events": self._events.last_number(job_id),
            "points": self._history.count(job_id),
            "receipts": self._receipts.count(job_id),
        }


# Row counts of a job that has not ended.
_NO_ROWS: Mapping[str, int] = {"events": 0, "points": 0, "receipts": 0}


def _columns(job: jobs_pb.Job) -> dict[str, object]:
    """Returns the columns of a job: its message, and the fields that queries use."""
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
