"""Job reader: reads jobs, the queue, and the jobs' events, history and receipts."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from service.errors import DatabaseRowError, Reason, ServiceError
from service.storage.digests import is_intact
from service.stores.database import NEWEST, Database
from service.stores.event_table import EventTable
from service.stores.history import HistoryTable, ReceiptTable
from service.stores.job_states import ENDED, TRANSITIONS, State
from service.stores.tables import JOBS, Row

__all__ = ["JobReader", "QueuedJob", "datasets_of"]

_OPEN: Final = tuple(TRANSITIONS.keys() - ENDED)


class QueuedJob(NamedTuple):
    """Queued job, as admission needs it.

    Attributes:
        job_id: Id of the job.
        number: Number of the job; grows with each created job.
        priority: Priority; the highest starts first.
        workers: Number of workers that it asks for.
        cpus_per_worker: CPUs of each worker.
        retry_time: Earliest start, in Unix seconds; 0 for at once.
        queued_time: Time when it was last queued, in Unix seconds.
        attempt: Number of attempts so far.
    """

    job_id: str
    number: int
    priority: int
    workers: int
    cpus_per_worker: int
    retry_time: float
    queued_time: float
    attempt: int = 0


def datasets_of(spec: spec_pb.JobSpec) -> frozenset[str]:
    """Returns the names of the data sets that a job uses."""
    return frozenset({spec.data.train, spec.data.validation} - {""})


class _RowCounts(NamedTuple):
    """Number of rows of an ended job in other tables; 0 before its end.

    Attributes:
        events: Smallest number of events.
        points: Number of history points.
        receipts: 1 if there is a receipt.
    """

    events: int = 0
    points: int = 0
    receipts: int = 0


_OF_JOB = "WHERE job_id = ?"


class JobReader:
    """Reads jobs and the rows that belong to them. Writes nothing."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now
        self._events = EventTable(database, self._timestamp)
        self._history = HistoryTable(database)
        self._receipts = ReceiptTable(database)
        # Data sets of jobs that have not ended, by job id. Cached, because specs may be large.
        self._datasets: dict[str, frozenset[str]] = {}

    def find_by_request(self, request_id: str) -> jobs_pb.Job | None:
        """Returns the job that the request of this id created; None if there is none, or the id is empty."""
        return self._find("request_id", request_id) if request_id else None

    def get(self, job_id: str) -> jobs_pb.Job:
        """Returns the job.

        Raises:
            ServiceError: NOT_FOUND.
            DatabaseRowError: Its row is damaged.
        """
        job = self._find("job_id", job_id)
        if job is None:
            raise _not_found(job_id)
        return job

    def has(self, job_id: str) -> bool:
        """Returns whether there is such a job."""
        return bool(self._database.rows("SELECT 1 FROM jobs WHERE job_id = ?", job_id))

    def ids(self) -> list[str]:
        """Returns the ids of all jobs, the oldest first."""
        return [str(row[0]) for row in self._database.rows("SELECT job_id FROM jobs ORDER BY number")]

    def page(self, before: int | None, limit: int, states: Collection[State]) -> tuple[list[bytes], int | None]:
        """Returns at most `limit` jobs, newest first, older than number `before`, and the `before` of the next page.

        Returns:
            The serialised jobs, to be parsed into the message that contains them, and that number, if any. A damaged
            job has only its id and a description of the damage.
        """
        # Without a filter all rows, because a damaged one may have any state.
        wanted = f"AND state IN ({', '.join('?' * len(states))})" if states else ""
        # In the order of the table: by the index of states SQLite would sort all rows with their specs for one page.
        query = f"NOT INDEXED WHERE number < ? {wanted} ORDER BY number DESC"
        rows, last = JOBS.page(self._database, query, before or NEWEST, *states, limit=limit)
        bodies = [row[-2] if is_intact(row) else _damaged(row).SerializeToString() for row in rows]
        return bodies, last[1] if last else None

    def jobs_in_states(self, states: Collection[State]) -> list[jobs_pb.Job]:
        """Returns all intact jobs in some states, the oldest first."""
        marks = ", ".join("?" * len(states))
        rows = JOBS.rows(self._database, f"WHERE state IN ({marks}) ORDER BY number", *states)
        return [jobs_pb.Job.FromString(row[-2]) for row in rows if is_intact(row)]

    def job_using_dataset(self, name: str) -> str | None:
        """Returns the id of a job that has not ended and uses a data set, if there is one."""
        self.load_datasets_in_use()
        return next((job_id for job_id, names in self._datasets.items() if name in names), None)

    def load_datasets_in_use(self) -> None:
        """Caches the data sets of jobs that have not ended; reads specs only if one is not cached."""
        marks = ", ".join("?" * len(_OPEN))
        query = f"SELECT job_id FROM jobs WHERE state IN ({marks}) ORDER BY number"  # noqa: S608 (only question marks)
        ids = [str(row[0]) for row in self._database.rows(query, *_OPEN)]
        if not self._datasets.keys() >= set(ids):
            self._datasets |= {job.job_id: datasets_of(job.spec) for job in self.jobs_in_states(_OPEN)}
        self._datasets = {job_id: self._datasets.get(job_id, frozenset()) for job_id in ids}

    def count_by_state(self) -> dict[State, int]:
        """Returns the number of jobs in each state."""
        counted = dict(self._database.rows("SELECT state, count(*) FROM jobs GROUP BY state"))
        return {state: counted.get(state, 0) for state in TRANSITIONS}

    def queued_jobs(self) -> list[QueuedJob]:
        """Returns the queue: jobs in their order of start, by priority and then by age."""
        query = (
            "SELECT job_id, number, priority, workers, cpus_per_worker, retry_time, update_time, attempt "
            "FROM jobs INDEXED BY jobs_in_queue "
            "WHERE state = 1 ORDER BY priority DESC, number"  # QUEUED, as the literal that the index is for
        )
        return list(map(QueuedJob._make, self._database.rows(query)))

    def damage_of_queued(self, queued: QueuedJob) -> DatabaseRowError | None:
        """Returns the damage of a queued job, if any. Reading the queue does not read the jobs' rows."""
        for row in JOBS.rows(self._database, "NOT INDEXED WHERE number = ?", queued.number):
            if not is_intact(row):
                return JOBS.damage(row)
            if row[0] == queued.job_id:
                return None
        return DatabaseRowError(
            f"job {queued.job_id!r} stands in the queue, but not in the table of jobs: stop the service, look at what "
            "`nablad check` finds, and restore the database from a backup",
            job_id=queued.job_id,
        )

    def damages(self) -> list[DatabaseRowError]:
        """Returns the damage of each damaged job, or that the table cannot be read."""
        return JOBS.damages(self._database)

    def queue_statistics(self) -> list[tuple[int, int, float]]:
        """Returns statistics of the queued jobs by the sign of their priority; none for a sign without jobs.

        Returns:
            Sign, number of jobs, and the earliest time of queueing, in Unix seconds.
        """
        query = (
            "SELECT (priority > 0) - (priority < 0), count(*), min(update_time) "
            "FROM jobs INDEXED BY jobs_in_queue WHERE state = 1 GROUP BY 1"
        )
        return self._database.rows(query)

    def events(self, job_id: str, from_number: int, limit: int = 1000) -> Sequence[jobs_pb.Event]:
        """Returns at most `limit` events of a job from a number on."""
        return self._events.events_from(job_id, from_number, limit, self._row_counts(job_id).events)

    def recent_events(self, job_id: str, limit: int) -> Sequence[jobs_pb.Event]:
        """Returns the last `limit` events of a job, without ends of epochs and checkpoints, the oldest first."""
        return self._events.recent_events(job_id, limit)

    def last_event(self, job_id: str) -> int:
        """Returns the number of a job's last event; 0 if there is no such job."""
        return max(self._events.last_number(job_id), self._row_counts(job_id).events)

    def history(
        self, job_id: str, kind: jobs_pb.HistoryKind.ValueType, after_step: int | None, limit: int
    ) -> tuple[list[jobs_pb.HistoryPoint], int | None]:
        """Returns at most `limit` points of a job, in order, after a step, and the `after_step` of the next page.

        Raises:
            ServiceError: NOT_FOUND.
            DatabaseRowError: A point is damaged, or was lost.
        """
        if not self.has(job_id):
            raise _not_found(job_id)
        if after_step is None and (count := self._history.count(job_id)) < (left := self._row_counts(job_id).points):
            raise DatabaseRowError(
                f"the history of job {job_id!r} is damaged in the database: it had {left} points, but has {count}; "
                "restore it from a backup, or train again to the same bits",
                job_id=job_id,
            )
        return self._history.page(job_id, kind or jobs_pb.HISTORY_KIND_EPOCHS, after_step, limit)

    def epoch_digests(self, job_id: str) -> list[str]:
        """Returns the SHA-256 of the weights after each epoch, in order; empty for an epoch without a point."""
        return self._history.epoch_digests(job_id)

    def epoch_with_weights(self, job_id: str, weights_sha256: str) -> jobs_pb.HistoryPoint | None:
        """Returns the last epoch at whose end the weights had this digest."""
        return self._history.epoch_with_weights(job_id, weights_sha256)

    def receipt(self, job_id: str) -> jobs_pb.Receipt | None:
        """Returns the receipt of a job; before the job has succeeded, the receipt is not complete.

        Raises:
            DatabaseRowError: The receipt is damaged or lost.
        """
        receipt = self._receipts.find(job_id)
        if receipt is None and self._row_counts(job_id).receipts:
            raise DatabaseRowError(
                f"the receipt of job {job_id!r} is lost from the database: restore it from a backup, or train again",
                job_id=job_id,
            )
        return receipt

    def _find(self, column: str, value: str) -> jobs_pb.Job | None:
        bodies = JOBS.bodies(self._database, f"WHERE {column} = ?", value)
        return jobs_pb.Job.FromString(bodies[0]) if bodies else None

    def _row_counts(self, job_id: str) -> _RowCounts:
        """Returns the row counts of an ended job. Only they show that a whole row was lost."""
        found = self._database.rows("SELECT events, points, receipts FROM jobs WHERE job_id = ?", job_id)
        # The counts of a damaged row are not trusted. Only rows of ended jobs are read, because bodies may be large.
        if not found or not any(found[0]) or not all(map(is_intact, JOBS.rows(self._database, _OF_JOB, job_id))):
            return _RowCounts()
        return _RowCounts._make(found[0])

    def _timestamp(self) -> Timestamp:
        stamp = Timestamp()
        stamp.FromDatetime(self._now())
        return stamp


def _damaged(row: Row) -> jobs_pb.Job:
    """Returns the message of a job that cannot be read."""
    damage = JOBS.damage(row)
    return jobs_pb.Job(job_id=damage.metadata["job_id"], damage=str(damage))


def _not_found(job_id: str) -> ServiceError:
    return ServiceError(
        Reason.NOT_FOUND, f"there is no job {job_id!r}; `nabla job list` shows those there are", job_id=job_id
    )
