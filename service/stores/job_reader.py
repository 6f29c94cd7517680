"""Reading what is known of jobs."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from nablad.v1 import jobs_pb2 as jobs_pb
from service.errors import Reason, ServiceError
from service.job_states import MOVES, State
from service.stores.database import NEWEST, Database
from service.stores.events import EventLog
from service.stores.history import HistoryTable, ReceiptTable

__all__ = ["JobReader", "Waiting"]


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


class JobReader:
    """The jobs, their queue, and what they left; changes nothing."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now
        self._events = EventLog(database, self._timestamp)
        self._history = HistoryTable(database)
        self._receipts = ReceiptTable(database)

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
            The jobs serialised, to be read into the message that they are part of; and that number.
        """
        wanted = tuple(states or MOVES)
        marks = ", ".join("?" * len(wanted))
        query = (
            f"SELECT body, number FROM jobs WHERE number < ? AND state IN ({marks}) "  # noqa: S608 (only question marks)
            "ORDER BY number DESC"
        )
        return self._database.page(query, before or NEWEST, *wanted, limit=limit)

    def in_states(self, states: Collection[State]) -> list[jobs_pb.Job]:
        """All jobs in some states, oldest first."""
        marks = ", ".join("?" * len(states))
        query = f"SELECT body FROM jobs WHERE state IN ({marks}) ORDER BY number"  # noqa: S608 (only question marks)
        return [jobs_pb.Job.FromString(body) for body in self._database.bodies(query, *states)]

    def counts(self) -> dict[State, int]:
        """Number of jobs in each state."""
        rows = self._database.rows("SELECT state, count(*) FROM jobs GROUP BY state")
        return dict.fromkeys(MOVES, 0) | dict(rows)

    def waiting(self) -> list[Waiting]:
        """The queue: jobs in the order in which they are to start, by priority and then by age."""
        query = (
            "SELECT job_id, number, priority, workers, cpus_per_worker, retry_time, update_time, attempt "
            "FROM jobs INDEXED BY jobs_in_queue "
            "WHERE state = 1 ORDER BY priority DESC, number"  # QUEUED, as the literal that the index is for
        )
        return list(map(Waiting._make, self._database.rows(query)))

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
        return self._events.since(job_id, from_number, limit)

    def recent_events(self, job_id: str, limit: int) -> Sequence[jobs_pb.Event]:
        """The last `limit` events of a job that are not the ends of epochs or checkpoints, the oldest first."""
        return self._events.recent(job_id, limit)

    def last_event(self, job_id: str) -> int:
        """The number of a job's last event; 0 if there is no such job."""
        return self._events.last(job_id)

    def history(
        self, job_id: str, kind: jobs_pb.HistoryKind.ValueType, after_step: int | None, limit: int
    ) -> tuple[list[jobs_pb.HistoryPoint], int | None]:
        """At most `limit` points of a job, in order, after a step; and the `after_step` of the next page, if any.

        Raises:
            ServiceError: NOT_FOUND.
        """
        if not self.has(job_id):
            raise _not_found(job_id)
        return self._history.page(job_id, kind or jobs_pb.HISTORY_KIND_EPOCHS, after_step, limit)

    def epoch_digests(self, job_id: str) -> list[str]:
        """SHA-256 of the weights after each epoch, the first epoch first; empty for one whose end was never told."""
        return self._history.epoch_digests(job_id)

    def epoch_with(self, job_id: str, weights_sha256: str) -> jobs_pb.HistoryPoint | None:
        """The last epoch at whose end the weights had this digest."""
        return self._history.epoch_with(job_id, weights_sha256)

    def receipt(self, job_id: str) -> jobs_pb.Receipt | None:
        """The receipt of a job, or what is known of it until the job has succeeded."""
        return self._receipts.find(job_id)

    def _find(self, column: str, value: str) -> jobs_pb.Job | None:
        query = f"SELECT body FROM jobs WHERE {column} = ?"  # noqa: S608 (the column is one of two literals)
        bodies = self._database.bodies(query, value)
        return jobs_pb.Job.FromString(bodies[0]) if bodies else None

    def _timestamp(self) -> Timestamp:
        stamp = Timestamp()
        stamp.FromDatetime(self._now())
        return stamp


def _not_found(job_id: str) -> ServiceError:
    return ServiceError(
        Reason.NOT_FOUND, f"there is no job {job_id!r}; `nabla job list` shows those there are", job_id=job_id
    )
