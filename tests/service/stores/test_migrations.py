"""Databases of earlier releases: brought up to date with all they hold, a copy kept, or left as they were."""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from google.protobuf.message import Message

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import models_pb2 as models_pb
from nablad.v1.metrics_pb2 import Metrics
from service.stores import database as database_module
from service.stores.catalogues import DatasetCatalogue, ModelCatalogue
from service.stores.database import Database, DatabaseError
from service.stores.job_states import (
    CANCELLED,
    FAILED,
    PAUSED,
    QUEUED,
    RUNNING,
    STARTING,
    SUCCEEDED,
    TRANSITIONS,
    State,
)
from service.stores.jobs import JobStore, QueuedJob
from service.stores.migrations import MIGRATIONS, Migration
from service.stores.tables import EVENTS, TABLES

# As released: databases with these schemas exist.
SCRIPTS = ["3a564982", "05732d54", "41173c00", "2f6dc747", "e3b0c442", "e3b0c442"]
OLD_STATES = [QUEUED, STARTING, RUNNING, SUCCEEDED, FAILED, CANCELLED]
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def _old_job(state: State) -> jobs_pb.Job:
    distribution = spec_pb.DistributionSpec(workers=2, cpus_per_worker=3)
    spec = spec_pb.JobSpec(name="a", distribution=distribution)
    job = jobs_pb.Job(job_id=f"a-{state}", spec=spec, state=state, reason="because", attempt=1)
    job.update_time.FromMilliseconds(1_000_500)
    return job


def _old_events(job_id: str) -> list[jobs_pb.Event]:
    queued = jobs_pb.Event(number=1, message=f"queued: {job_id}", state=QUEUED)
    epoch = jobs_pb.Event(number=2, message="epoch 1", epoch_end=jobs_pb.Progress(epoch=1))
    return [queued, epoch, jobs_pb.Event(number=3, message="worker-1 was lost", worker_joined=False)]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A database of schema 1 with a job in each of its states, each with events, a data set and a model."""
    path = tmp_path / "nablad.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(f"{MIGRATIONS[0].script}; PRAGMA user_version = 1;")
        for job in map(_old_job, OLD_STATES):
            connection.execute(
                "INSERT INTO jobs (job_id, request_id, state, body) VALUES (?, ?, ?, ?)",
                (job.job_id, f"request {job.state}", job.state, job.SerializeToString()),
            )
            for event in _old_events(job.job_id):
                values = (job.job_id, event.number, event.SerializeToString())
                connection.execute("INSERT INTO events VALUES (?, ?, ?)", values)
        connection.execute("INSERT INTO datasets VALUES ('d', x'')")
        connection.execute("INSERT INTO models (model_id, body) VALUES ('m', x'')")
        connection.commit()
    return path


def _content(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [*connection.iterdump(), str(connection.execute("PRAGMA user_version").fetchone())]


@pytest.fixture
def migrated(old: Path) -> Iterator[Database]:
    """The same one, opened."""
    database = Database(old)
    yield database
    database.close()


def test_released_schemas_do_not_change() -> None:
    """Who changes one leaves databases behind that are not what their number says."""
    digests = [hashlib.sha256(migration.script.encode()).hexdigest()[:8] for migration in MIGRATIONS]
    assert digests[: len(SCRIPTS)] == SCRIPTS


def test_everything_is_there_after_a_migration(migrated: Database) -> None:
    """Jobs in every state with what specs have by now, events, requests, data sets and models."""
    jobs = JobStore(migrated, lambda: NOW)
    for expected in map(_old_job, OLD_STATES):
        job = jobs.find_by_request(f"request {expected.state}")
        assert job is not None
        assert (job.spec.priority, job.spec.limits.attempts, job.spec.checkpoints.every_seconds) == (0, 3, 30)
        for field in ("priority", "limits", "checkpoints"):
            job.spec.ClearField(field)
        assert job == expected
        assert list(jobs.events(job.job_id, 1)) == _old_events(job.job_id)
    assert jobs.count_by_state() == dict.fromkeys(TRANSITIONS, 1) | {PAUSED: 0}
    assert DatasetCatalogue(migrated).names() == ["d"]
    assert len(ModelCatalogue(migrated).page(None, 9)[0]) == 1


def test_new_columns_hold_what_old_rows_say(migrated: Database) -> None:
    """The queue knows what its jobs ask for, and recent events are those of note."""
    jobs = JobStore(migrated, lambda: NOW)
    assert jobs.queued_jobs() == [QueuedJob(f"a-{QUEUED}", 1, 0, 2, 3, 0.0, 1000.5, attempt=1)]
    assert [event.number for event in jobs.recent_events(f"a-{QUEUED}", 9)] == [1, 3]


def test_old_rows_get_digests(migrated: Database) -> None:
    """They are taken for what was written; what is changed from then on is damage."""
    assert [damage for table in TABLES for damage in table.damages(migrated)] == []
    assert {table.name: len(table.rows(migrated)) for table in TABLES} == {
        "jobs": len(OLD_STATES),
        "events": 3 * len(OLD_STATES),
        "history": 0,
        "receipts": 0,
        "datasets": 1,
        "models": 1,
    }
    migrated.rows("UPDATE events SET kind = 2 WHERE job_id = ? AND number = 3", f"a-{QUEUED}")
    assert [damage.metadata["number"] for table in TABLES for damage in table.damages(migrated)] == ["3"]


def test_an_old_row_that_is_no_text_stays_without_a_digest(old: Path) -> None:
    """A bit that was flipped before digests were kept must not keep the service from starting."""
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("UPDATE events SET job_id = CAST(x'61ff' AS TEXT) WHERE number = 3 AND job_id = 'a-1'")
        connection.commit()
    with closing(Database(old)) as database:
        assert [damage.metadata for damage in EVENTS.damages(database)] == [
            {"table": "events", "job_id": "a\\udcff", "number": "3"}
        ]


def test_every_schema_leads_to_the_same(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Release by release, or all at once."""
    stepwise = tmp_path / "stepwise"
    stepwise.write_bytes(old.read_bytes())
    for newest in range(2, len(MIGRATIONS) + 1):
        monkeypatch.setattr(database_module, "MIGRATIONS", MIGRATIONS[:newest])
        Database(stepwise).close()
    Database(old).close()
    assert _content(stepwise) == _content(old)


@pytest.fixture
def schema_4(tmp_path: Path) -> Path:
    """A database that the release with schema 4 wrote: two jobs, of class labels and of values, and their models."""
    path = tmp_path / "nablad.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript((Path(__file__).parent / "data" / "schema4.sql").read_text())
    return path


def test_metrics_of_schema_4_are_there(schema_4: Path) -> None:
    """In jobs, in their events, in their history and in models, all of them and no others."""
    with closing(Database(schema_4)) as database:
        assert [damage for table in TABLES for damage in table.damages(database)] == []
        jobs = JobStore(database, lambda: NOW)
        for job_id, labelled in (("classes-af5c27d8", True), ("values-36302fb0", False)):
            expected = [_metrics_of_schema_4(epoch, labelled=labelled) for epoch in (1, 2)]
            assert _metrics(jobs.get(job_id).progress) == expected[-1]
            ends = [event.epoch_end for event in jobs.events(job_id, 1) if event.HasField("epoch_end")]
            assert [_metrics(end) for end in ends] == expected
            points, _ = jobs.history(job_id, jobs_pb.HISTORY_KIND_EPOCHS, None, 9)
            assert [_metrics(point) for point in points] == expected
            assert [(point.learning_rate, point.weights_sha256) for point in points] == [(0.1, "1" * 8), (0.1, "2" * 8)]
            steps, _ = jobs.history(job_id, jobs_pb.HISTORY_KIND_STEPS, None, 9)
            accuracy = {"accuracy": 0.5} if labelled else {}
            assert [step.training for step in steps] == [Metrics(cost=0.75, **accuracy), Metrics(cost=0, **accuracy)]
            model = ModelCatalogue(database).get(job_id)
            validation = Metrics(cost=0.5, accuracy=0.75) if labelled else None
            assert _metrics(model) == (Metrics(cost=0.5), validation)
            messages = (jobs.get(job_id), model, *jobs.events(job_id, 1), *points, *steps)
            assert all(_without_unknown(message) == message.SerializeToString() for message in messages)


def test_a_damaged_row_of_schema_4_stays_damaged(schema_4: Path) -> None:
    """A new digest would hide it."""
    with closing(sqlite3.connect(schema_4)) as connection:
        connection.execute("UPDATE history SET body = x'080a' WHERE step = 10 AND job_id LIKE 'values-%'")
        connection.commit()
    with closing(Database(schema_4)) as database:
        (damage,) = [damage for table in TABLES for damage in table.damages(database)]
        assert (damage.metadata["table"], damage.metadata["step"]) == ("history", "10")


def _metrics_of_schema_4(epoch: int, *, labelled: bool) -> tuple[Metrics, Metrics | None]:
    if not labelled:
        return Metrics(cost=1 / epoch), None
    validation = Metrics(cost=2 / (epoch + 2), accuracy=1 - 1 / (epoch + 2))
    return Metrics(cost=1 / epoch, accuracy=1 - 1 / (epoch + 1)), validation


def _metrics(message: jobs_pb.Progress | jobs_pb.HistoryPoint | models_pb.Model) -> tuple[Metrics, Metrics | None]:
    return message.training, message.validation if message.HasField("validation") else None


def _without_unknown(message: Message) -> bytes:
    message.DiscardUnknownFields()
    return message.SerializeToString()


@pytest.fixture
def schema_5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database with schema 5: two jobs and their models, one without a policy; it was a number then."""
    path = tmp_path / "nablad.sqlite3"
    with monkeypatch.context() as patch, closing(_open_with(patch, path, schema=5)) as database:
        for name, field_4 in (("sync", b"\x20\x01"), ("none", b"")):
            spec = spec_pb.JobSpec(name=name, distribution=spec_pb.DistributionSpec(workers=2, micro_batches=4))
            spec.distribution.MergeFromString(field_4)
            JobStore(database, lambda: NOW).create(spec, "", job_id=name)
            ModelCatalogue(database).add(models_pb.Model(model_id=name, spec=spec))
    return path


def _open_with(patch: pytest.MonkeyPatch, path: Path, schema: int) -> Database:
    patch.setattr(database_module, "MIGRATIONS", MIGRATIONS[:schema])
    return Database(path)


def test_policies_of_schema_5_are_there(schema_5: Path) -> None:
    """In jobs and in models, and nothing is left of the number; the rest of a spec is as it was."""
    with closing(Database(schema_5)) as database:
        assert [damage for table in TABLES for damage in table.damages(database)] == []
        for holder in (JobStore(database, lambda: NOW), ModelCatalogue(database)):
            for name, policy in (("sync", spec_pb.PolicySpec(name=spec_pb.POLICY_SYNC)), ("none", None)):
                message = holder.get(name)
                expected = spec_pb.DistributionSpec(workers=2, micro_batches=4, policy=policy)
                assert message.spec == spec_pb.JobSpec(name=name, distribution=expected)
                assert _without_unknown(message) == message.SerializeToString()


def test_old_jobs_go_on(migrated: Database) -> None:
    """Every move of theirs is one of today's, and their events count on."""
    jobs = JobStore(migrated, lambda: NOW)
    for state in (STARTING, FAILED):
        jobs.move(f"a-{state}", QUEUED, "again")
        assert jobs.last_event(f"a-{state}") == 4
    jobs.delete(f"a-{SUCCEEDED}")
    assert jobs.events(f"a-{SUCCEEDED}", 1) == []


def test_a_copy_with_the_old_schema_is_kept(old: Path) -> None:
    """Beside the database, with the same content, in place of what a crash left of it."""
    (old.parent / ".nablad.sqlite3.schema1").write_bytes(b"half of one")
    before = _content(old)
    Database(old).close()
    assert _content(old) != before
    assert _content(old.with_name("nablad.sqlite3.schema1")) == before
    assert {path.name for path in old.parent.iterdir()} == {"nablad.sqlite3", "nablad.sqlite3.schema1"}


def test_only_a_migration_makes_a_copy(tmp_path: Path) -> None:
    """A new database has nothing to keep, and one that is up to date neither."""
    for _ in range(2):
        Database(tmp_path / "db").close()
    assert [path.name for path in tmp_path.iterdir()] == ["db"]


def test_a_migration_that_fails_changes_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its script nor its filling is half there; the next start tries again."""

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM events")
        connection.execute("DELETE FROM no_such_table")

    before = _content(old)
    with monkeypatch.context() as patch:
        patch.setattr(database_module, "MIGRATIONS", (MIGRATIONS[0], Migration(MIGRATIONS[1].script, fail)))
        with pytest.raises(DatabaseError, match="no such table"):
            Database(old)
    assert _content(old) == before
    Database(old).close()
    assert _content(old) != before


def test_without_a_copy_nothing_is_migrated(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No room for the copy: said in a sentence, and the database stays as it was."""

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    before = _content(old)
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(DatabaseError, match=r"no copy of it can be kept.*No space left"):
        Database(old)
    assert _content(old) == before
