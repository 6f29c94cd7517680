"""Reading what is known of jobs."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from service.errors import DatabaseRowError, Reason, ServiceError
from service.storage.digests import is_intact
from service.stores.database import NEWEST, Database
from service.stores.events import EventLog
from service.stores.history import HistoryTable, ReceiptTable
from service.stores.job_states import ENDED, MOVES, State
from service.stores.tables import JOBS, Row

__all__ = ["JobReader", "Waiting", "datasets_of"]

_OPEN: Final = tuple(MOVES.keys() - ENDED)


class Waiting(NamedTuple):
    """What the queue has to know of a queued job.

    Attributes:
        job_id: Whose.
        number: Grows with each job that is created.
        priority: The highest starts first.
        workers: How many it asks for.
        cpus_per_worker: CPUs of each.
        retry_time: Unix seconds before which it does not start; 0 for at once.
        queued_time: Unix seconds at which it came into the queue, the last time.
        attempt: How often it was launched.
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
    """The names of the data sets that a job uses."""
    return frozenset({spec.data.train, spec.data.validation} - {""})


class _Left(NamedTuple):
    """Rows that a job has beside its own; 0 before its end.

    Attributes:
        events: At least.
        points: Of its history.
        receipts: 1 if it has one.
    """

    events: int = 0
    points: int = 0
    receipts: int = 0


_OF_JOB = "WHERE job_id = ?"


class JobReader:
    """The jobs, their queue, and what they left; changes nothing."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now
        self._events = EventLog(database, self._timestamp)
        self._history = HistoryTable(database)
        self._receipts = ReceiptTable(database)
        # The data sets of jobs that have not ended, by job id. Specs keep them, and may be large.
        self._datasets: dict[str, frozenset[str]] = {}

    def requested(self, request_id: str) -> jobs_pb.Job | None:
        """The job that a request with this id made; None if there was none, or the id is empty."""
        return self._find("request_id", request_id) if request_id else None

    def get(self, job_id: str) -> jobs_pb.Job:
        """The job.

        Raises:
            ServiceError: NOT_FOUND.
            DatabaseRowError: What is known of it is damaged.
        """
        job = self._find("job_id", job_id)
        if job is None:
            raise _not_found(job_id)
        return job

    def has(self, job_id: str) -> bool:
        """Whether there is such a job."""
        return bool(self._database.rows("SELECT 1 FROM jobs WHERE job_id = ?", job_id))

    def ids(self) -> list[str]:
        """Of all jobs, the oldest first."""
        return [str(row[0]) for row in self._database.rows("SELECT job_id FROM jobs ORDER BY number")]

    def page(self, before: int | None, limit: int, states: Collection[State]) -> tuple[list[bytes], int | None]:
        """At most `limit` jobs, newest first, older than number `before`; and the `before` of the next page, if any.

        Returns:
            The jobs serialised, to be read into the message that they are part of; and that number. One that is damaged
            has an id and that damage.
        """
        # Without a filter every row, for a damaged one may have no state.
        wanted = f"AND state IN ({', '.join('?' * len(states))})" if states else ""
        # In the order of the table: from an index of states all of them would be sorted for one page, with their specs.
        query = f"NOT INDEXED WHERE number < ? {wanted} ORDER BY number DESC"
        rows, last = JOBS.page(self._database, query, before or NEWEST, *states, limit=limit)
        bodies = [row[-2] if is_intact(row) else _damaged(row).SerializeToString() for row in rows]
        return bodies, last[1] if last else None

    def in_states(self, states: Collection[State]) -> list[jobs_pb.Job]:
        """All jobs in some states, oldest first, but for damaged ones."""
        marks = ", ".join("?" * len(states))
        rows = JOBS.rows(self._database, f"WHERE state IN ({marks}) ORDER BY number", *states)
        return [jobs_pb.Job.FromString(row[-2]) for row in rows if is_intact(row)]

    def user_of_dataset(self, name: str) -> str | None:
        """The id of a job that has not ended and uses a data set, if there is one; reads no spec that is known."""
        self.learn_datasets()
        return next((job_id for job_id, names in self._datasets.items() if name in names), None)

    def learn_datasets(self) -> None:
        """Reads the specs of jobs that have not ended, unless all of them are known. At the start none is."""
        marks = ", ".join("?" * len(_OPEN))
        query = f"SELECT job_id FROM jobs WHERE state IN ({marks}) ORDER BY number"  # noqa: S608 (only question marks)
        ids = [str(row[0]) for row in self._database.rows(query, *_OPEN)]
        if not self._datasets.keys() >= set(ids):
            self._datasets |= {job.job_id: datasets_of(job.spec) for job in self.in_states(_OPEN)}
        self._datasets = {job_id: self._datasets.get(job_id, frozenset()) for job_id in ids}

    def counts(self) -> dict[State, int]:
        """Number of jobs in each state."""
        counted = dict(self._database.rows("SELECT state, count(*) FROM jobs GROUP BY state"))
        return {state: counted.get(state, 0) for state in MOVES}

    def waiting(self) -> list[Waiting]:
        """The queue: jobs in the order in which they are to start, by priority and then by age."""
        query = (
            "SELECT job_id, number, priority, workers, cpus_per_worker, retry_time, update_time, attempt "
            "FROM jobs INDEXED BY jobs_in_queue "
            "WHERE state = 1 ORDER BY priority DESC, number"  # QUEUED, as the literal that the index is for
        )
        return list(map(Waiting._make, self._database.rows(query)))

    def damage_of(self, waiting: Waiting) -> DatabaseRowError | None:
        """Why a job that waits cannot be started, if it is damaged; the queue is read without the jobs themselves."""
        for row in JOBS.rows(self._database, "NOT INDEXED WHERE number = ?", waiting.number):
            if not is_intact(row):
                return JOBS.damage(row)
            if row[0] == waiting.job_id:
                return None
        return DatabaseRowError(
            f"job {waiting.job_id!r} stands in the queue, but not in the table of jobs: stop the service, look at what "
            "`nablad check` finds, and restore the database from a backup",
            job_id=waiting.job_id,
        )

    def damages(self) -> list[DatabaseRowError]:
        """All damaged jobs; or that the table cannot be read."""
        return JOBS.damages(self._database)

    def queue_figures(self) -> list[tuple[int, int, float]]:
        """Of the queued jobs by the sign of their priority, as far as there are any.

        Returns:
            Sign, number of jobs, and the Unix seconds since which the one has waited that has waited longest.
        """
        query = (
            "SELECT (priority > 0) - (priority < 0), count(*), min(update_time) "
            "FROM jobs INDEXED BY jobs_in_queue WHERE state = 1 GROUP BY 1"
        )
        return self._database.rows(query)

    def events(self, job_id: str, from_number: int, limit: int = 1000) -> Sequence[jobs_pb.Event]:
        """At most `limit` events of a job from a number on."""
        return self._events.since(job_id, from_number, limit, self._left(job_id).events)

    def recent_events(self, job_id: str, limit: int) -> Sequence[jobs_pb.Event]:
        """The last `limit` events of a job that are not the ends of epochs or checkpoints, the oldest first."""
        return self._events.recent(job_id, limit)

    def last_event(self, job_id: str) -> int:
        """The number of a job's last event; 0 if there is no such job."""
        return max(self._events.last(job_id), self._left(job_id).events)

    def history(
        self, job_id: str, kind: jobs_pb.HistoryKind.ValueType, after_step: int | None, limit: int
    ) -> tuple[list[jobs_pb.HistoryPoint], int | None]:
        """At most `limit` points of a job, in order, after a step; and the `after_step` of the next page, if any.

        Raises:
            ServiceError: NOT_FOUND.
            DatabaseRowError: A point is damaged, or was lost.
        """
        if not self.has(job_id):
            raise _not_found(job_id)
        if after_step is None and (count := self._history.count(job_id)) < (left := self._left(job_id).points):
            raise DatabaseRowError(
                f"the history of job {job_id!r} is damaged in the database: it had {left} points, but has {count}; "
                "restore it from a backup, or train again to the same bits",
                job_id=job_id,
            )
        return self._history.page(job_id, kind or jobs_pb.HISTORY_KIND_EPOCHS, after_step, limit)

    def epoch_digests(self, job_id: str) -> list[str]:
        """SHA-256 of the weights after each epoch, the first epoch first; empty for one whose end was never told."""
        return self._history.epoch_digests(job_id)

    def epoch_with(self, job_id: str, weights_sha256: str) -> jobs_pb.HistoryPoint | None:
        """The last epoch at whose end the weights had this digest."""
        return self._history.epoch_with(job_id, weights_sha256)

    def receipt(self, job_id: str) -> jobs_pb.Receipt | None:
        """The receipt of a job, or what is known of it until the job has succeeded.

        Raises:
            DatabaseRowError: It is damaged, or was lost.
        """
        receipt = self._receipts.find(job_id)
        if receipt is None and self._left(job_id).receipts:
            raise DatabaseRowError(
                f"the receipt of job {job_id!r} is lost from the database: restore it from a backup, or train again",
                job_id=job_id,
            )
        return receipt

    def _find(self, column: str, value: str) -> jobs_pb.Job | None:
        bodies = JOBS.bodies(self._database, f"WHERE {column} = ?", value)
        return jobs_pb.Job.FromString(bodies[0]) if bodies else None

    def _left(self, job_id: str) -> _Left:
        """How much a job has left that has ended. A row that was lost as a whole is missed by its number alone."""
        found = self._database.rows("SELECT events, points, receipts FROM jobs WHERE job_id = ?", job_id)
        # Of a damaged row nothing counts. Bodies, which may be large, are read only of jobs that have ended.
        if not found or not any(found[0]) or not all(map(is_intact, JOBS.rows(self._database, _OF_JOB, job_id))):
            return _Left()
        return _Left._make(found[0])

    def _timestamp(self) -> Timestamp:
        stamp = Timestamp()
        stamp.FromDatetime(self._now())
        return stamp


def _damaged(row: Row) -> jobs_pb.Job:
    """What is shown of a job that cannot be read."""
    damage = JOBS.damage(row)
    return jobs_pb.Job(job_id=damage.metadata["job_id"], damage=str(damage))


def _not_found(job_id: str) -> ServiceError:
    return ServiceError(
        Reason.NOT_FOUND, f"there is no job {job_id!r}; `nabla job list` shows those there are", job_id=job_id
    )
