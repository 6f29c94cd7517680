"""The schemas of the database, from the first one on, and the steps from each to the next."""

import sqlite3
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import metrics_pb2 as metrics_pb
from nablad.v1 import models_pb2 as models_pb
from service.storage.digests import is_intact, row_digest

__all__ = ["MIGRATIONS", "Migration"]


@dataclass(frozen=True)
class Migration:
    """Takes the schema one version further.

    Attributes:
        script: Statements of SQL.
        fill: Fills the new columns from what the rows have; runs after the script, in the same transaction.
    """

    script: str
    fill: Callable[[sqlite3.Connection], None] | None = None


def _fill_schema_2(connection: sqlite3.Connection) -> None:
    for number, body in connection.execute("SELECT number, body FROM jobs").fetchall():
        job = jobs_pb.Job.FromString(body)
        _complete_spec(job)
        distribution = job.spec.distribution
        connection.execute(
            "UPDATE jobs SET workers = ?, cpus_per_worker = ?, attempt = ?, body = ? WHERE number = ?",
            (distribution.workers, distribution.cpus_per_worker, job.attempt, job.SerializeToString(), number),
        )
    ends = [
        (job_id, number)
        for job_id, number, body in connection.execute("SELECT job_id, number, body FROM events")
        if jobs_pb.Event.FromString(body).HasField("epoch_end")
    ]
    connection.executemany("UPDATE events SET kind = 1 WHERE job_id = ? AND number = ?", ends)


def _fill_schema_3(connection: sqlite3.Connection) -> None:
    for number, body in connection.execute("SELECT number, body FROM jobs").fetchall():
        updated = jobs_pb.Job.FromString(body).update_time.ToNanoseconds() / 1e9
        connection.execute("UPDATE jobs SET update_time = ? WHERE number = ?", (updated, number))


def _fill_schema_4(connection: sqlite3.Connection) -> None:
    """Takes every row for what was written, and those that are there for all: nothing says otherwise."""
    connection.execute(
        "UPDATE jobs SET events = (SELECT count(*) FROM events WHERE events.job_id = jobs.job_id), "
        "points = (SELECT count(*) FROM history WHERE history.job_id = jobs.job_id), "
        "receipts = (SELECT count(*) FROM receipts WHERE receipts.job_id = jobs.job_id) "
        "WHERE state IN (4, 5, 6)"  # succeeded, failed, cancelled
    )
    for table, columns in _DIGESTED_IN_SCHEMA_4.items():
        _fill_digests(connection, table, columns)


def _fill_digests(connection: sqlite3.Connection, table: str, columns: Sequence[str]) -> None:
    """By the primary key, and in portions: there may be many rows. Of those behind the cursor only `digest` changes."""
    keys = [name for _, name, *_, key in connection.execute(f"PRAGMA table_info({table})") if key]
    where = " AND ".join(f"{name} = ?" for name in keys)
    query = f"UPDATE {table} SET digest = ? WHERE {where}"  # noqa: S608 (our names)
    rows = connection.execute(f"SELECT {', '.join(columns)} FROM {table}")  # noqa: S608 (our names)
    while portion := rows.fetchmany(1000):
        named = [(row, [row[columns.index(name)] for name in keys]) for row in portion]
        # A key that is no text is damage already, and stays without a digest.
        connection.executemany(query, [(row_digest(row), *key) for row, key in named if _is_text(key)])


def _fill_schema_5(connection: sqlite3.Connection) -> None:
    """Moves metrics into messages of their own."""
    _upgrade_bodies(connection, _UPGRADES_OF_SCHEMA_4)


def _upgrade_bodies(connection: sqlite3.Connection, upgrades: Mapping[str, Callable[[bytes], bytes]]) -> None:
    """Upgrades bodies, by table. A damaged row stays as it is: a new digest would hide the damage."""
    for table, upgrade in upgrades.items():
        columns = (*_DIGESTED_IN_SCHEMA_4[table], "digest")
        keys = [name for _, name, *_, key in connection.execute(f"PRAGMA table_info({table})") if key]
        where = " AND ".join(f"{name} = ?" for name in keys)
        query = f"UPDATE {table} SET body = ?, digest = ? WHERE {where}"  # noqa: S608 (our names)
        rows = connection.execute(f"SELECT {', '.join(columns)} FROM {table}")  # noqa: S608 (our names)
        while portion := rows.fetchmany(1000):
            changed = []
            for row in filter(is_intact, portion):
                *others, before, _ = row
                if (body := upgrade(before)) != before:
                    key = [row[columns.index(name)] for name in keys]
                    changed.append((body, row_digest((*others, body)), *key))
            connection.executemany(query, changed)


def _upgraded_job(body: bytes) -> bytes:
    job = jobs_pb.Job.FromString(body)
    if not job.HasField("progress"):
        return body
    _move_metrics(job.progress, _METRICS_OF_PROGRESS)
    return job.SerializeToString()


def _upgraded_event(body: bytes) -> bytes:
    event = jobs_pb.Event.FromString(body)
    if not event.HasField("epoch_end"):
        return body
    _move_metrics(event.epoch_end, _METRICS_OF_PROGRESS)
    return event.SerializeToString()


def _upgraded_point(body: bytes) -> bytes:
    point = jobs_pb.HistoryPoint.FromString(body)
    if not point.training.HasField("cost"):
        point.training.cost = 0  # it had no presence: a cost of 0 was not written
    _move_metrics(point, _METRICS_OF_POINTS)
    return point.SerializeToString()


def _upgraded_model(body: bytes) -> bytes:
    model = models_pb.Model.FromString(body)
    _move_metrics(model, _METRICS_OF_MODELS)
    return model.SerializeToString()


def _fill_schema_6(connection: sqlite3.Connection) -> None:
    """Moves the policy of specs into a message of its own."""
    _upgrade_bodies(connection, _UPGRADES_OF_SCHEMA_5)


def _upgraded_policy_of_job(body: bytes) -> bytes:
    job = jobs_pb.Job.FromString(body)
    return job.SerializeToString() if _move_policy(job.spec) else body


def _upgraded_policy_of_model(body: bytes) -> bytes:
    model = models_pb.Model.FromString(body)
    return model.SerializeToString() if _move_policy(model.spec) else body


def _move_policy(spec: spec_pb.JobSpec) -> bool:
    """Moves the policy, a number that was field 4 of the distribution; returns whether there was one."""
    if not spec.HasField("distribution"):
        return False
    numbers = [field.data for field in UnknownFieldSet(spec.distribution) if field.field_number == 4]  # type: ignore[attr-defined] # which has __getitem__ alone
    if numbers:
        spec.distribution.policy.name = numbers[-1]
        spec.distribution.DiscardUnknownFields()
    return bool(numbers)


def _move_metrics(message: Message, places: Mapping[int, tuple[str, str]]) -> None:
    """Moves doubles that were fields of a message, by their numbers, into its metrics."""
    for field in UnknownFieldSet(message):  # type: ignore[attr-defined] # which has __getitem__ alone
        if field.field_number in places:
            rows, name = places[field.field_number]
            metrics: metrics_pb.Metrics = getattr(message, rows)
            setattr(metrics, name, *struct.unpack("<d", struct.pack("<Q", field.data)))
    message.DiscardUnknownFields()


def _is_text(key: Sequence[object]) -> bool:
    return not any("\udc80" <= letter <= "\udcff" for value in key if isinstance(value, str) for letter in value)


def _complete_spec(job: jobs_pb.Job) -> None:
    """Gives a job what specs did not have under schema 1; such a job may still wait to run, or be tried again."""
    job.spec.priority = 0
    job.spec.limits.attempts = 3
    job.spec.checkpoints.every_seconds = 30.0


# In the order that the digest takes them in.
_DIGESTED_IN_SCHEMA_4: Mapping[str, Sequence[str]] = {
    "jobs": (
        *("job_id", "number", "request_id", "state", "priority", "workers", "cpus_per_worker", "retry_time"),
        *("attempt", "update_time", "events", "points", "receipts", "body"),
    ),
    "events": ("job_id", "number", "kind", "body"),
    "history": ("job_id", "kind", "step", "body"),
    "receipts": ("job_id", "body"),
    "datasets": ("name", "body"),
    "models": ("model_id", "number", "body"),
}

_METRICS_OF_PROGRESS: Mapping[int, tuple[str, str]] = {
    7: ("training", "cost"),
    8: ("training", "accuracy"),
    9: ("validation", "cost"),
    10: ("validation", "accuracy"),
}
_METRICS_OF_POINTS: Mapping[int, tuple[str, str]] = {
    5: ("training", "cost"),
    6: ("training", "accuracy"),
    7: ("validation", "cost"),
    8: ("validation", "accuracy"),
}
_METRICS_OF_MODELS: Mapping[int, tuple[str, str]] = {
    5: ("training", "cost"),
    6: ("validation", "cost"),
    7: ("validation", "accuracy"),
}
# By table, from the body that schema 4 has to the one of schema 5.
_UPGRADES_OF_SCHEMA_4: Mapping[str, Callable[[bytes], bytes]] = {
    "jobs": _upgraded_job,
    "events": _upgraded_event,
    "history": _upgraded_point,
    "models": _upgraded_model,
}

_UPGRADES_OF_SCHEMA_5: Mapping[str, Callable[[bytes], bytes]] = {
    "jobs": _upgraded_policy_of_job,
    "models": _upgraded_policy_of_model,
}

# Entries are only ever added: databases of every age are opened.
MIGRATIONS = (
    Migration(
        """
    CREATE TABLE jobs (
        number     INTEGER PRIMARY KEY AUTOINCREMENT,
        job_id     TEXT NOT NULL UNIQUE,
        request_id TEXT UNIQUE,
        state      INTEGER NOT NULL,
        body       BLOB NOT NULL          -- nablad.v1.Job
    );
    CREATE INDEX jobs_by_state ON jobs (state, number);
    CREATE TABLE events (
        job_id     TEXT NOT NULL REFERENCES jobs (job_id) ON DELETE CASCADE,
        number     INTEGER NOT NULL,
        body       BLOB NOT NULL,         -- nablad.v1.Event
        PRIMARY KEY (job_id, number)
    ) WITHOUT ROWID;
    CREATE TABLE datasets (
        name       TEXT PRIMARY KEY,
        body       BLOB NOT NULL          -- nablad.v1.Dataset
    );
    CREATE TABLE models (
        number     INTEGER PRIMARY KEY AUTOINCREMENT,
        model_id   TEXT NOT NULL UNIQUE,
        body       BLOB NOT NULL          -- nablad.v1.Model
    );
    """
    ),
    Migration(
        """
    ALTER TABLE jobs ADD COLUMN priority        INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN workers         INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE jobs ADD COLUMN cpus_per_worker INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE jobs ADD COLUMN retry_time      REAL NOT NULL DEFAULT 0;     -- Unix seconds; 0: at once
    ALTER TABLE jobs ADD COLUMN attempt         INTEGER NOT NULL DEFAULT 0;
    -- All that the queue asks for, of the jobs that are queued (state 1): bodies, which may be large, are not read.
    CREATE INDEX jobs_in_queue
        ON jobs (state, priority DESC, number, job_id, workers, cpus_per_worker, retry_time, attempt) WHERE state = 1;
    ALTER TABLE events ADD COLUMN kind INTEGER NOT NULL DEFAULT 0;           -- service.stores.events.Kind
    CREATE INDEX events_of_note ON events (job_id, number) WHERE kind = 0;
    CREATE TABLE history (
        job_id     TEXT NOT NULL REFERENCES jobs (job_id) ON DELETE CASCADE,
        kind       INTEGER NOT NULL,      -- nablad.v1.HistoryKind
        step       INTEGER NOT NULL,
        body       BLOB NOT NULL,         -- nablad.v1.HistoryPoint
        PRIMARY KEY (job_id, kind, step)
    ) WITHOUT ROWID;
    CREATE TABLE receipts (
        job_id     TEXT PRIMARY KEY REFERENCES jobs (job_id) ON DELETE CASCADE,
        body       BLOB NOT NULL          -- nablad.v1.Receipt
    );
    """,
        _fill_schema_2,
    ),
    Migration(
        """
    ALTER TABLE jobs ADD COLUMN update_time REAL NOT NULL DEFAULT 0;         -- Unix seconds
    DROP INDEX jobs_in_queue;
    -- As before, and since when a job is queued.
    CREATE INDEX jobs_in_queue
        ON jobs (state, priority DESC, number, job_id, workers, cpus_per_worker, retry_time, attempt, update_time)
        WHERE state = 1;
    """,
        _fill_schema_3,
    ),
    Migration(
        # Digests of all other columns, see service.digests. And how much a job left that has ended: a row that is lost
        # as a whole has no digest.
        """
    ALTER TABLE jobs     ADD COLUMN digest BLOB NOT NULL DEFAULT x'';
    ALTER TABLE jobs     ADD COLUMN events INTEGER NOT NULL DEFAULT 0;      -- so many at least; 0 before its end
    ALTER TABLE jobs     ADD COLUMN points INTEGER NOT NULL DEFAULT 0;      -- of its history; 0 before its end
    ALTER TABLE jobs     ADD COLUMN receipts INTEGER NOT NULL DEFAULT 0;    -- 1 if it has one; 0 before its end
    ALTER TABLE events   ADD COLUMN digest BLOB NOT NULL DEFAULT x'';
    ALTER TABLE history  ADD COLUMN digest BLOB NOT NULL DEFAULT x'';
    ALTER TABLE receipts ADD COLUMN digest BLOB NOT NULL DEFAULT x'';
    ALTER TABLE datasets ADD COLUMN digest BLOB NOT NULL DEFAULT x'';
    ALTER TABLE models   ADD COLUMN digest BLOB NOT NULL DEFAULT x'';
    """,
        _fill_schema_4,
    ),
    # The same tables: the messages in `body` have their metrics elsewhere.
    Migration("", _fill_schema_5),
    # The same tables: the specs in `body` have their policy in a message.
    Migration("", _fill_schema_6),
)
