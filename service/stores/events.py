"""What happened to jobs, numbered without gaps."""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from nablad.v1 import jobs_pb2 as jobs_pb
from service.storage.digests import is_intact
from service.stores.database import Database
from service.stores.tables import EVENTS

__all__ = ["EventLog"]


class _Kind(IntEnum):
    """What tells the events that repeat all along from those of note."""

    OTHER = 0
    EPOCH_END = 1
    CHECKPOINT = 2


# Places in a row of the table.
_NUMBER, _BODY = 1, -2

_REPEATING = {"epoch_end": _Kind.EPOCH_END, "checkpoint": _Kind.CHECKPOINT}


class EventLog:
    """The events of all jobs. Writes only within a transaction of the caller's."""

    def __init__(self, database: Database, now: Callable[[], Timestamp]) -> None:
        self._database = database
        self._now = now

    def append(self, job: jobs_pb.Job, message: str, **what: Any) -> None:
        """Adds an event; `what` is its field of that oneof, if it has one."""
        number = self.last(job.job_id) + 1
        event = jobs_pb.Event(number=number, time=self._now(), attempt=job.attempt, message=message, **what)
        kind = _REPEATING.get(event.WhichOneof("what") or "", _Kind.OTHER)
        row = {"job_id": job.job_id, "number": number, "kind": int(kind), "body": event.SerializeToString()}
        # In place of what is there only if that is damaged: `last` counts every event that is not.
        EVENTS.insert(self._database, row, replace=True)

    def last(self, job_id: str) -> int:
        """The number of a job's last event; 0 before the first one. Of a damaged one the number does not count."""
        damaged = 0
        for row in EVENTS.iterate(self._database, "WHERE job_id = ? ORDER BY number DESC", job_id):
            if is_intact(row):
                return int(row[_NUMBER]) + damaged
            damaged += 1
        return damaged

    def since(self, job_id: str, number: int, limit: int, at_least: int = 0) -> Sequence[jobs_pb.Event]:
        """At most `limit` events of a job from a number on; one that is damaged or lost says so in its place.

        Args:
            job_id: Whose.
            number: Of the first.
            limit: How many.
            at_least: So many events the job is known to have.
        """
        until = min(max(self.last(job_id), at_least) + 1, number + limit)
        query = "WHERE job_id = ? AND number >= ? AND number < ? ORDER BY number"
        rows = EVENTS.rows(self._database, query, job_id, number, until)
        found = {row[_NUMBER]: jobs_pb.Event.FromString(row[_BODY]) for row in rows if is_intact(row)}
        if len(found) < until - number:
            # Behind a key that is damaged a search by the key may have missed some.
            rows = EVENTS.rows(self._database, "WHERE +job_id = ?", job_id)
            found = {row[_NUMBER]: jobs_pb.Event.FromString(row[_BODY]) for row in rows if is_intact(row)}
        return [found.get(each) or _damaged(job_id, each) for each in range(number, until)]

    def recent(self, job_id: str, limit: int) -> Sequence[jobs_pb.Event]:
        """The last `limit` events of a job that are not the ends of epochs or checkpoints, the oldest first."""
        # Left to itself SQLite takes the primary key, and reads all that repeats.
        query = "INDEXED BY events_of_note WHERE job_id = ? AND kind = 0 ORDER BY number DESC LIMIT ?"
        rows = EVENTS.rows(self._database, query, job_id, limit)[::-1]
        # The number of a damaged one may be anything; it is told in its place by `since`.
        return [jobs_pb.Event.FromString(row[_BODY]) for row in rows if is_intact(row)]


def _damaged(job_id: str, number: int) -> jobs_pb.Event:
    """What is told in place of an event that cannot be read: numbers have no gaps."""
    message = (
        f"event {number} of job {job_id} is damaged in the service's database; what it said is in a backup, if there "
        "is one, and `nablad check` looks through everything"
    )
    return jobs_pb.Event(number=number, message=message, notice=True)
