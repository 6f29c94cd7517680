"""Damage in the database: always noticed, reported where it is read, and without effect on other rows."""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import models_pb2 as models_pb
from nablad.v1.metrics_pb2 import Metrics
from service.daemon.check import DirectoryCheck
from service.daemon.startup import clean_up_after_crash
from service.errors import DatabaseRowError, ServiceError
from service.storage.data_directory import DataDirectory
from service.storage.digests import row_digest
from service.stores.catalogues import DatasetCatalogue, ModelCatalogue
from service.stores.database import Database, DatabaseError
from service.stores.job_states import CANCELLED, FAILED, QUEUED, RUNNING, STARTING, SUCCEEDED
from service.stores.jobs import JobStore
from service.stores.tables import TABLES

NOW = datetime(2026, 1, 2, tzinfo=UTC)
EPOCHS, STEPS = jobs_pb.HISTORY_KIND_EPOCHS, jobs_pb.HISTORY_KIND_STEPS

# Every column of every table, with what it becomes: a value that it could have as well, or one of another type.
COLUMNS: list[tuple[str, str, Any]] = [
    *(
        ("jobs", column, 33)
        for column in ("state", "priority", "workers", "attempt", "number", "events", "points", "receipts")
    ),
    *(("jobs", column, 1.5) for column in ("retry_time", "update_time", "state")),
    *(("jobs", column, "b") for column in ("job_id", "request_id")),
    *(("events", column, 77) for column in ("number", "kind")),
    *(("history", column, 7) for column in ("kind", "step")),
    ("models", "number", 7),
    ("models", "model_id", "b"),
    ("datasets", "name", "b"),
    *((table.name, column, value) for table in TABLES for column in ("body", "digest") for value in (b"", "a", 1)),
]


class Stores:
    """Everything that reads one database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.jobs = JobStore(database, lambda: NOW)
        self.datasets = DatasetCatalogue(database)
        self.models = ModelCatalogue(database)

    def damage(self) -> list[str]:
        return [str(damage) for table in TABLES for damage in table.damages(self.database)]


def _fill(stores: Stores) -> list[str]:
    """Two jobs with events, history and receipts, one of them at its end, and one that waits; a data set, a model."""
    names = []
    for number in range(3):
        spec = spec_pb.JobSpec(name=f"job{number}", training=spec_pb.TrainingSpec(epochs=4, learning_rate=0.1))
        job_id = stores.jobs.create(spec, f"request {number}", job_id=f"job-{number}").job_id
        names.append(job_id)
    for job_id in names[:2]:
        stores.jobs.move(job_id, STARTING, "test")
        stores.jobs.move(job_id, RUNNING, "test")
        for epoch in range(1, 5):
            point = jobs_pb.HistoryPoint(
                epoch=epoch, step=epoch * 10, training=Metrics(cost=1 / epoch), weights_sha256="ab" * 32
            )
            step = jobs_pb.HistoryPoint(step=epoch, training=Metrics(cost=2 / epoch))
            stores.jobs.append_history(job_id, [(jobs_pb.Progress(epoch=epoch), point, f"epoch {epoch}")], [step])
        stores.jobs.save_receipt(jobs_pb.Receipt(job_id=job_id, steps=40, final_weights_sha256="ab" * 32))
    stores.jobs.move(names[0], SUCCEEDED, "test", model_id=names[0])
    stores.datasets.add(datasets_pb.Dataset(name="digits", rows=5, sha256="cd" * 32))
    stores.models.add(models_pb.Model(model_id=names[0], sha256="ef" * 32, training=Metrics(cost=0.25)))
    return names


@pytest.fixture
def stores(database: Database) -> Stores:
    """A database with something in every table."""
    stores = Stores(database)
    _fill(stores)
    return stores


def _change(path: Path, query: str, *parameters: object) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(query, parameters).rowcount == 1
        connection.commit()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of the database."""
    return tmp_path / "nablad.sqlite3"


def test_what_the_stores_write_is_whole(stores: Stores) -> None:
    """Every row in every table, however it was written last."""
    assert stores.damage() == []
    stores.jobs.set_workers("job-1", 3, "more")
    stores.jobs.rewind_history("job-1", 20)
    stores.jobs.save_receipt(jobs_pb.Receipt(job_id="job-1", steps=41))
    stores.models.add(models_pb.Model(model_id="job-0"))
    assert stores.damage() == []


def test_every_column_counts(stores: Stores) -> None:
    """A value that somebody else wrote into any column of a row, of whatever type, is damage of this row alone."""
    stores.database.rows("PRAGMA foreign_keys = OFF")
    keys = {"jobs": "number", "models": "number", "datasets": "name", "receipts": "job_id"}
    for table, column, value in COLUMNS:
        key = keys.get(table, "digest")
        stores.database.rows("BEGIN")
        first = f"{key} = (SELECT min({key}) FROM {table})"  # noqa: S608 (our names)
        stores.database.rows(f"UPDATE {table} SET {column} = ? WHERE {first}", value)  # noqa: S608
        assert len(stores.damage()) == 1, (table, column, value)
        stores.database.rows("ROLLBACK")
    assert stores.damage() == []


def test_a_digest_tells_values_and_types_apart() -> None:
    """No two of these rows have the same one."""
    rows: list[tuple[object, ...]] = [("a", b"b"), ("ab", b""), ("a", "b"), ("a", None), (1, b"b"), (1.0, b"b")]
    rows += [("a", "", b"b"), ("a'", b"b"), ("a", 0, b"b"), (b"a", b"b"), ("\udc80", b"b"), ("a", b"b]")]
    assert len({row_digest(row) for row in rows}) == len(rows)


def _flip_body(path: Path, where: str, bit: int = 7) -> None:
    """Flips a bit of the message of one row."""
    with closing(sqlite3.connect(path)) as connection:
        ((body,),) = connection.execute(f"SELECT body FROM {where}").fetchall()  # noqa: S608 (our names)
        body = bytes([body[0] ^ 1 << bit]) + body[1:]
        table, _, condition = where.partition(" ")
        connection.execute(f"UPDATE {table} SET body = ? {condition}", (body,))  # noqa: S608
        connection.commit()


def test_a_damaged_job_is_named_and_others_are_read(stores: Stores, path: Path) -> None:
    """Asked for, it is refused with what to do; lists have it with its damage; queue and restart pass it by."""
    _flip_body(path, "jobs WHERE job_id = 'job-1'")
    with pytest.raises(DatabaseRowError, match=r"job 'job-1'.*damaged in the database.*backup.*nabla job delete job-1"):
        stores.jobs.get("job-1")
    assert stores.jobs.get("job-0").state == SUCCEEDED
    bodies, rest = stores.jobs.page(None, 10, ())
    listed = {job.job_id: job for job in map(jobs_pb.Job.FromString, bodies)}
    assert rest is None
    assert {job_id: bool(job.damage) for job_id, job in listed.items()} == {"job-0": 0, "job-1": 1, "job-2": 0}
    assert [job.job_id for job in stores.jobs.jobs_in_states([RUNNING, QUEUED])] == ["job-2"]
    with pytest.raises(DatabaseRowError):
        stores.jobs.move("job-1", CANCELLED, "test")
    stores.jobs.delete("job-1")
    assert not stores.jobs.has("job-1")
    assert stores.damage() == []


def test_a_job_in_no_state_is_listed(stores: Stores, path: Path) -> None:
    """Its state was what is damaged."""
    _change(path, "UPDATE jobs SET state = 77 WHERE job_id = 'job-2'")
    bodies, _ = stores.jobs.page(None, 10, ())
    assert [jobs_pb.Job.FromString(body).job_id for body in bodies] == ["job-2", "job-1", "job-0"]
    assert sum(stores.jobs.count_by_state().values()) == 2


def test_a_damaged_event_is_told_in_its_place(stores: Stores, path: Path) -> None:
    """The numbers of a watch have no gaps, wherever it begins; new events go on after a last one that is damaged."""
    whole = stores.jobs.events("job-1", 1)
    damaged = {1, 5, len(whole)}
    for number in damaged:
        _flip_body(path, f"events WHERE job_id = 'job-1' AND number = {number}")
    stores.jobs.append_event("job-1", "another one")
    for first in range(1, len(whole) + 2):
        told = stores.jobs.events("job-1", first)
        assert [event.number for event in told] == list(range(first, len(whole) + 2))
        for event in told[:-1]:
            if event.number in damaged:
                assert f"event {event.number} of job job-1 is damaged" in event.message
            else:
                assert event == whole[event.number - 1]
    assert stores.jobs.events("job-1", 2, 3) == [whole[1], whole[2], whole[3]]
    assert [event.number for event in stores.jobs.recent_events("job-1", 9)] == [2, 3, len(whole) + 1]


@pytest.mark.parametrize("change", ["body = x'00'", "step = 21"])
def test_damaged_history_is_refused(stores: Stores, path: Path, change: str) -> None:
    """No page gives a point with other figures; pages before it, the other kind, and other jobs are read."""
    where = f"job_id = 'job-1' AND kind = {EPOCHS} AND step = 20"
    _change(path, f"UPDATE history SET {change} WHERE {where}")  # noqa: S608 (our names)
    with pytest.raises(DatabaseRowError, match=r"history of job 'job-1' at step 2. .*damaged"):
        stores.jobs.history("job-1", EPOCHS, None, 100)
    with pytest.raises(DatabaseRowError, match="history of job 'job-1'"):
        stores.jobs.epoch_digests("job-1")
    assert [point.step for point in stores.jobs.history("job-1", EPOCHS, None, 1)[0]] == [10]
    assert len(stores.jobs.history("job-1", STEPS, None, 100)[0]) == 4
    assert len(stores.jobs.history("job-0", EPOCHS, None, 100)[0]) == 4


@pytest.mark.parametrize("change", ["number = -number", "number = 1000 + number", "model_id = CAST(x'78ff' AS TEXT)"])
@pytest.mark.parametrize("limit", [1, 2, 3, 20])
def test_pages_come_to_their_end(stores: Stores, change: str, limit: int) -> None:
    """Wherever a damaged row says that it is, and whatever it is called: every one that is intact is listed."""
    for number in range(9):
        stores.models.add(models_pb.Model(model_id=f"x{number}"))
        stores.datasets.add(datasets_pb.Dataset(name=f"x{number}"))
    stores.database.rows(f"UPDATE models SET {change} WHERE model_id = 'x4'")  # noqa: S608 (our changes)
    stores.database.rows("UPDATE datasets SET name = CAST(x'78ff' AS TEXT) WHERE name = 'x4'")
    intact = {f"x{number}" for number in range(9) if number != 4}
    models, before = stores.models.page(None, limit)
    while before is not None:
        found, before = stores.models.page(before, limit)
        models += found
    assert intact <= {each.model_id for each in models}
    datasets, after = stores.datasets.page("", limit)
    while after:
        found_sets, after = stores.datasets.page(after, limit)
        datasets += found_sets
    assert intact <= {each.name for each in datasets}


def test_damaged_receipts_and_catalogues_are_refused(stores: Stores, path: Path) -> None:
    """Asked for by name; lists have them with their damage, and they can be deleted."""
    _flip_body(path, "receipts WHERE job_id = 'job-0'")
    with pytest.raises(DatabaseRowError, match="receipt of job 'job-0'"):
        stores.jobs.receipt("job-0")
    _flip_body(path, "datasets WHERE name = 'digits'")
    with pytest.raises(DatabaseRowError, match=r"data set 'digits'.*nabla dataset add"):
        stores.datasets.get("digits")
    assert [(each.name, "damaged" in each.damage) for each in stores.datasets.page("", 9)[0]] == [("digits", True)]
    with pytest.raises(ServiceError, match="there is a data set 'digits' already"):
        stores.datasets.require_free("digits")
    stores.datasets.delete("digits")
    _flip_body(path, "models WHERE model_id = 'job-0'")
    with pytest.raises(DatabaseRowError, match=r"model 'job-0'.*nabla model delete job-0"):
        stores.models.get("job-0")
    assert [(each.model_id, "damaged" in each.damage) for each in stores.models.page(None, 9)[0]] == [("job-0", True)]
    stores.models.delete("job-0")
    assert stores.datasets.names() == []
    assert stores.models.ids() == set()


def test_nothing_is_tidied_up_beside_damage(stores: Stores, path: Path, tmp_path: Path) -> None:
    """A job whose id is damaged keeps its checkpoints and its model: they look as if they belonged to none."""
    directory = DataDirectory(tmp_path / "data")
    directory.checkpoints("job-1").mkdir()
    directory.model("job-1").touch()
    _change(path, "UPDATE jobs SET job_id = 'job-9' WHERE job_id = 'job-1'")
    clean_up_after_crash(directory, stores.jobs, stores.models)
    assert directory.jobs_with_checkpoints() == ["job-1"]
    assert directory.model_ids() == ["job-1"]
    directory.close()


def _with_damaged_queue(data: bytes, path: Path) -> bool:
    """Changes the job's id in the queue, which is an index; whether it is there once the table is left as it was."""
    place = -1
    while (place := data.find(b"job-2", place + 1)) >= 0:
        path.write_bytes(data[:place] + b"job-3" + data[place + 5 :])
        with closing(Database(path)) as database:
            jobs = JobStore(database, lambda: NOW)
            if not jobs.damages() and [waiting.job_id for waiting in jobs.queued_jobs()] == ["job-3"]:
                return True
    return False


def test_the_start_makes_the_queue_anew(stores: Stores, path: Path, tmp_path: Path) -> None:
    """It is read from an index alone, which has no digests."""
    stores.database.close()
    assert _with_damaged_queue(path.read_bytes(), path)
    directory = DataDirectory(tmp_path / "data")
    with closing(Database(path)) as database:
        jobs = JobStore(database, lambda: NOW)
        clean_up_after_crash(directory, jobs, ModelCatalogue(database))
        assert [waiting.job_id for waiting in jobs.queued_jobs()] == ["job-2"]
    directory.close()


def _with_damaged_index(data: bytes, path: Path, index: str) -> None:
    """Changes the id job-0 in what a table is searched by, and not in the table."""
    place = -1
    while (place := data.find(b"job-0", place + 1)) >= 0:
        path.write_bytes(data[:place] + b"job-9" + data[place + 5 :])
        with closing(Database(path)) as database:
            broken = [line for (line,) in database.rows("PRAGMA integrity_check")]
            if not Stores(database).damage() and any(index in line for line in broken):
                return
    raise AssertionError(f"no place was found in {index}")


@pytest.mark.parametrize("table", ["jobs", "models"])
def test_nothing_is_removed_for_a_damaged_index(stores: Stores, path: Path, tmp_path: Path, table: str) -> None:
    """What it does not name any more is there, and so is all that belongs to it."""
    stores.database.close()
    _with_damaged_index(path.read_bytes(), path, f"sqlite_autoindex_{table}_1")
    directory = DataDirectory(tmp_path / "data")
    directory.checkpoints("job-0").mkdir()
    directory.model("job-0").touch()
    with closing(Database(path)) as database:
        stores = Stores(database)
        clean_up_after_crash(directory, stores.jobs, stores.models)
        assert directory.model_ids() == ["job-0"]
        assert directory.jobs_with_checkpoints() == ["job-0"]
        assert len(stores.jobs.events("job-0", 1)) == 8
        assert stores.jobs.receipt("job-0")
        assert stores.models.get("job-0")
        assert database.rows("PRAGMA integrity_check") == [("ok",)]
    directory.close()


@pytest.mark.parametrize("key", ["'job-9'", "CAST(x'6a6fe22d31' AS TEXT)"])
def test_a_row_that_came_to_another_job_by_damage_stays(
    stores: Stores, path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    """It looks like what is left of a deleted job. The service starts, also if the id is no text any more."""
    _change(path, f"UPDATE history SET job_id = {key} WHERE job_id = 'job-1' AND kind = 1 AND step = 20")  # noqa: S608
    directory = DataDirectory(tmp_path / "data")
    clean_up_after_crash(directory, stores.jobs, stores.models)
    assert "are damaged in the database: run `nablad check`" in caplog.text
    assert len(stores.damage()) == 1
    directory.close()


def test_what_stands_in_the_queue_alone_is_damage(stores: Stores, path: Path) -> None:
    """Looked at before it is started: its row may be damaged, or not be there."""
    (waiting,) = stores.jobs.queued_jobs()
    assert stores.jobs.damage_of_queued(waiting) is None
    assert "stands in the queue" in str(stores.jobs.damage_of_queued(waiting._replace(number=99)))
    _change(path, "UPDATE jobs SET workers = 9 WHERE job_id = 'job-2'")
    assert "job 'job-2'" in str(stores.jobs.damage_of_queued(waiting))


# -- bits of the file --------------------------------------------------------------------------------------------------


def _read(path: Path) -> Iterator[Any]:
    """All that was promised, message by message; DatabaseRowError in place of what is refused."""
    with closing(Database(path)) as database:
        stores = Stores(database)
        looks = [lambda job_id=f"job-{number}": [stores.jobs.get(job_id)] for number in range(3)]
        looks += [lambda job_id=f"job-{number}": [stores.jobs.receipt(job_id)] for number in range(2)]
        looks += [lambda job_id=f"job-{number}": stores.jobs.events(job_id, 1) for number in range(3)]
        looks += [
            lambda job_id=f"job-{number}", kind=kind: stores.jobs.history(job_id, kind, None, 100)[0]
            for number in range(3)
            for kind in (EPOCHS, STEPS)
        ]
        looks += [lambda: [stores.datasets.get("digits")], lambda: [stores.models.get("job-0")]]
        looks += [lambda: stores.datasets.page("", 9)[0], lambda: stores.models.page(None, 9)[0]]
        looks += [lambda: map(jobs_pb.Job.FromString, stores.jobs.page(None, 9, ())[0])]
        looks += [
            lambda: stores.jobs.recent_events("job-1", 9),
            lambda: stores.jobs.jobs_in_states([RUNNING, SUCCEEDED]),
        ]
        for look in looks:
            try:
                yield from look()
            except (DatabaseRowError, ServiceError) as error:
                yield error


def test_a_flipped_bit_is_never_read_as_the_truth(tmp_path: Path) -> None:
    """Wherever in the file: all that is read is what was written, and `nablad check` tells when anything is not."""
    directory = DataDirectory(tmp_path / "data")
    with closing(Database(directory.database)) as database:
        _fill(Stores(database))
    for job_id in ("digits", "job-0"):
        directory.dataset(job_id).mkdir()
    written = list(_read(directory.database))
    known = {message.SerializeToString() for message in written}
    data, draw = directory.database.read_bytes(), random.Random(5)
    noticed = 0
    quiet = [finding.sentence for finding in DirectoryCheck(directory).run()]
    places = [place for place, byte in enumerate(data) if byte]  # most of a small database is empty
    for _ in range(150):
        changed = bytearray(data)
        changed[draw.choice(places)] ^= 1 << draw.randrange(8)
        directory.database.write_bytes(changed)
        try:
            read = list(_read(directory.database))
        except DatabaseError:
            continue
        messages = [each for each in read if not isinstance(each, Exception)]
        lost = [each for each in messages if each is None or each.SerializeToString() not in known]
        assert all("is damaged" in str(each) for each in lost if each is not None), lost
        if read != written:
            noticed += 1
            assert [finding.sentence for finding in DirectoryCheck(directory).run()] != quiet
    assert noticed > 60
    directory.close()


# -- rows that are lost ------------------------------------------------------------------------------------------------


def test_what_a_job_has_lost_is_missed(stores: Stores) -> None:
    """Of a job that has ended, though rows are gone without a trace: events, history, receipt."""
    events = stores.jobs.events("job-0", 1)
    stores.database.rows("DELETE FROM events WHERE job_id = 'job-0' AND number >= ?", len(events) - 1)
    told = stores.jobs.events("job-0", 1)
    assert [event.number for event in told] == [event.number for event in events]
    assert [event == other for event, other in zip(told, events, strict=True)] == [True] * (len(events) - 2) + [
        False
    ] * 2
    assert stores.jobs.last_event("job-0") == len(events)
    stores.database.rows("DELETE FROM history WHERE job_id = 'job-0' AND kind = 1 AND step = 40")
    with pytest.raises(DatabaseRowError, match="it had 8 points, but has 7"):
        stores.jobs.history("job-0", EPOCHS, None, 3)
    stores.database.rows("DELETE FROM receipts WHERE job_id = 'job-0'")
    with pytest.raises(DatabaseRowError, match="receipt of job 'job-0' is lost"):
        stores.jobs.receipt("job-0")
    assert stores.jobs.receipt("job-2") is None


def test_a_job_that_is_tried_again_may_have_less(stores: Stores) -> None:
    """It goes on from a checkpoint, and forgets what was behind that."""
    stores.jobs.move("job-1", FAILED, "test")
    stores.jobs.move("job-1", QUEUED, "test")
    stores.jobs.rewind_history("job-1", 10)
    assert len(stores.jobs.history("job-1", EPOCHS, None, 100)[0]) == 1
    stores.jobs.move("job-1", CANCELLED, "test")
    assert len(stores.jobs.history("job-1", EPOCHS, None, 100)[0]) == 1


def test_a_damaged_number_of_events_makes_none(stores: Stores) -> None:
    """It is a column like any other."""
    events = stores.jobs.events("job-0", 1)
    stores.database.rows("UPDATE jobs SET events = 1000000, points = 1000000, receipts = 1 WHERE job_id = 'job-0'")
    assert stores.jobs.events("job-0", 1, 10_000) == events
    assert len(stores.jobs.history("job-0", EPOCHS, None, 100)[0]) == 4
