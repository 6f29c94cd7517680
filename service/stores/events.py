"""What happened to jobs, numbered without gaps."""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from nablad.v1 import jobs_pb2 as jobs_pb
from service.stores.database import Database

__all__ = ["EventLog"]


class _Kind(IntEnum):
    """What tells the events that repeat all along from those of note."""

    OTHER = 0
    EPOCH_END = 1
    CHECKPOINT = 2


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
        self._database.rows(
            "INSERT INTO events (job_id, number, body, kind) VALUES (?, ?, ?, ?)",
            *(job.job_id, number, event.SerializeToString(), kind),
        )

    def last(self, job_id: str) -> int:
        """The number of a job's last event; 0 before the first one."""
        ((last,),) = self._database.rows("SELECT coalesce(max(number), 0) FROM events WHERE job_id = ?", job_id)
        return int(last)

    def since(self, job_id: str, number: int, limit: int) -> Sequence[jobs_pb.Event]:
        """At most `limit` events of a job from a number on."""
        query = "SELECT body FROM events WHERE job_id = ? AND number >= ? ORDER BY number LIMIT ?"
        return _events(self._database.bodies(query, job_id, number, limit))

    def recent(self, job_id: str, limit: int) -> Sequence[jobs_pb.Event]:
        """The last `limit` events of a job that are not the ends of epochs or checkpoints, the oldest first."""
        # Left to itself SQLite takes the primary key, and reads all that repeats.
        query = (
            "SELECT body FROM events INDEXED BY events_of_note "
            "WHERE job_id = ? AND kind = 0 ORDER BY number DESC LIMIT ?"
        )
        return _events(self._database.bodies(query, job_id, limit)[::-1])


def _events(bodies: Sequence[bytes]) -> Sequence[jobs_pb.Event]:
    return [jobs_pb.Event.FromString(body) for body in bodies]
