"""Event table: the events of jobs, numbered without gaps."""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from nablad.v1 import jobs_pb2 as jobs_pb
from service.storage.digests import is_intact
from service.stores.database import Database
from service.stores.tables import EVENTS

__all__ = ["EventTable"]


class _Kind(IntEnum):
    """Kind of an event, which separates frequent events from the others."""

    OTHER = 0
    EPOCH_END = 1
    CHECKPOINT = 2


# Places in a row of the table.
_NUMBER, _BODY = 1, -2

_FREQUENT = {"epoch_end": _Kind.EPOCH_END, "checkpoint": _Kind.CHECKPOINT}


class EventTable:
    """The events of all jobs. Writes only within a transaction of the caller's."""

    def __init__(self, database: Database, now: Callable[[], Timestamp]) -> None:
        self._database = database
        self._now = now

    def append_event(self, job: jobs_pb.Job, message: str, **what: Any) -> None:
        """Adds an event. `what` is the field of the oneof ``what`` that is set, if any."""
        number = self.last_number(job.job_id) + 1
        event = jobs_pb.Event(number=number, time=self._now(), attempt=job.attempt, message=message, **what)
        kind = _FREQUENT.get(event.WhichOneof("what") or "", _Kind.OTHER)
        row = {"job_id": job.job_id, "number": number, "kind": int(kind), "body": event.SerializeToString()}
        # Replaces only a damaged row, because `last_number` counts all intact ones.
        EVENTS.insert(self._database, row, replace=True)

    def last_number(self, job_id: str) -> int:
        """Returns the number of a job's last event, 0 if there is none. The number of a damaged row is not trusted."""
        damaged = 0
        for row in EVENTS.iterate(self._database, "WHERE job_id = ? ORDER BY number DESC", job_id):
            if is_intact(row):
                return int(row[_NUMBER]) + damaged
            damaged += 1
        return damaged

    def events_from(self, job_id: str, number: int, limit: int, at_least: int = 0) -> Sequence[jobs_pb.Event]:
        """Returns at most `limit` events of a job from a number on. In place of a damaged or lost one comes a notice.

        Args:
            job_id: Id of the job.
            number: Number of the first event.
            limit: Largest number of events.
            at_least: Number of events that the job is known to have.
        """
        until = min(max(self.last_number(job_id), at_least) + 1, number + limit)
        query = "WHERE job_id = ? AND number >= ? AND number < ? ORDER BY number"
        rows = EVENTS.rows(self._database, query, job_id, number, until)
        found = {row[_NUMBER]: jobs_pb.Event.FromString(row[_BODY]) for row in rows if is_intact(row)}
        if len(found) < until - number:
            # A search by the key may miss rows behind a damaged key.
            rows = EVENTS.rows(self._database, "WHERE +job_id = ?", job_id)
            found = {row[_NUMBER]: jobs_pb.Event.FromString(row[_BODY]) for row in rows if is_intact(row)}
        return [found.get(each) or _damaged(job_id, each) for each in range(number, until)]

    def recent_events(self, job_id: str, limit: int) -> Sequence[jobs_pb.Event]:
        """Returns the last `limit` events of a job, without ends of epochs and checkpoints, the oldest first."""
        # Without the hint SQLite uses the primary key, and reads all frequent events.
        query = "INDEXED BY events_of_note WHERE job_id = ? AND kind = 0 ORDER BY number DESC LIMIT ?"
        rows = EVENTS.rows(self._database, query, job_id, limit)[::-1]
        # The number of a damaged row may be wrong. `events_from` has a notice in its place.
        return [jobs_pb.Event.FromString(row[_BODY]) for row in rows if is_intact(row)]


def _damaged(job_id: str, number: int) -> jobs_pb.Event:
    """Returns a notice in place of an event that cannot be read, because numbers have no gaps."""
    message = (
        f"event {number} of job {job_id} is damaged in the service's database; what it said is in a backup, if there "
        "is one, and `nablad check` looks through everything"
    )
    return jobs_pb.Event(number=number, message=message, notice=True)
