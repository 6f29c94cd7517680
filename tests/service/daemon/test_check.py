"""`nablad check`: names whatever is gone or damaged, whichever kind of thing it is, and nothing else."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from nablad.jobspec import complete
from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import models_pb2 as models_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1.metrics_pb2 import Metrics
from service.checkpoints.folder import CheckpointFolder
from service.checkpoints.image import Snapshot, make_image
from service.daemon.cli import main
from service.datasets import StagedFile, store_dataset
from service.models.model_files import writing_model
from service.storage.data_directory import DataDirectory
from service.stores.catalogues import DatasetCatalogue, ModelCatalogue
from service.stores.database import Database
from service.stores.job_states import FAILED, RUNNING, STARTING
from service.stores.jobs import JobStore
from workers import from_spec

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SPEC = spec_pb.JobSpec(
    name="a", data=spec_pb.DataSpec(train="digits"), model=spec_pb.ModelSpec(layers=[2, 3]), training={"epochs": 2}
)


def _fill(directory: DataDirectory, database: Database, tmp_path: Path) -> None:
    """One of everything: a job that runs, with what it leaves, a data set, a model, two checkpoints."""
    rows = tmp_path / "rows.csv"
    rows.write_text("".join(f"{number},{number / 3},{number % 2}\n" for number in range(20)))
    stored = store_dataset([StagedFile(rows.name, rows)], datasets_pb.DataFiles(), directory.dataset("digits"))
    dataset = datasets_pb.Dataset(name="digits", **asdict(stored))
    DatasetCatalogue(database).add(dataset)
    jobs, spec = JobStore(database, lambda: NOW), complete(SPEC, dataset)
    jobs.create(spec, "request", job_id="a-1")
    jobs.move("a-1", STARTING, "test")
    jobs.move("a-1", RUNNING, "test")
    point = jobs_pb.HistoryPoint(epoch=1, step=1, training=Metrics(cost=0.5))
    jobs.append_history("a-1", [(jobs_pb.Progress(epoch=1), point, "epoch 1")], [])
    jobs.save_receipt(jobs_pb.Receipt(job_id="a-1", steps=1))
    parameters = np.zeros(from_spec.size(spec), from_spec.dtype(spec))
    scaling = ps_pb.FeatureScaling(shift=[0.0], factor=[1.0])
    with writing_model(directory.model("a-1"), ps_pb.Assignment(spec=spec, scaling=scaling)) as model:
        model.write(parameters.tobytes())
    ModelCatalogue(database).add(models_pb.Model(model_id="a-1", spec=spec, sha256=model.sha256))
    for step in (1, 2):
        with CheckpointFolder(directory.checkpoints("a-1")).writing(step, 1) as writer:
            writer.write(make_image(Snapshot(ps_pb.TrainingState(step=step), parameters), {}))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with one of everything, which nobody changes."""
    folder = tmp_path_factory.mktemp("whole")
    with closing(DataDirectory(folder / "data")) as directory, closing(Database(directory.database)) as database:
        _fill(directory, database, folder)
    return folder / "data"


@pytest.fixture
def data(tmp_path: Path, whole: Path) -> Path:
    """A copy of it, which nobody uses."""
    return shutil.copytree(whole, tmp_path / "data")


@pytest.fixture
def check(data: Path) -> Callable[[], Result]:
    """Runs the command."""
    return lambda: CliRunner().invoke(main, ["check", "--data-dir", str(data)])


def test_what_is_whole_is_said_to_be_whole(check: Callable[[], Result]) -> None:
    """With what was looked at, and exit code 0."""
    told = check()
    assert told.exit_code == 0
    assert told.output == (
        "nablad check: no damage, notes: 0; looked at: jobs 1, events 4, history 1, receipts 1, datasets 1, models 1, "
        "checkpoints 2\n"
    )


def _flip_file(name: str) -> Callable[[Path], None]:
    def flip(data: Path) -> None:
        content = bytearray((data / name).read_bytes())
        content[-1] ^= 4
        (data / name).write_bytes(content)

    return flip


def _flip_row(table: str) -> Callable[[Path], None]:
    def flip(data: Path) -> None:
        with closing(sqlite3.connect(data / "nablad.sqlite3")) as connection:
            ((body,),) = connection.execute(f"SELECT body FROM {table} LIMIT 1").fetchall()  # noqa: S608 (our names)
            body = body[:-1] + bytes([body[-1] ^ 4])
            first = f"digest = (SELECT digest FROM {table} LIMIT 1)"  # noqa: S608 (as above)
            connection.execute(f"UPDATE {table} SET body = ? WHERE {first}", (body,))  # noqa: S608 (as above)
            connection.commit()

    return flip


def _remove(name: str) -> Callable[[Path], None]:
    def remove(data: Path) -> None:
        path = data / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


CHECKPOINT = "checkpoints/a-1/000000000002-000001.safetensors"
DAMAGE = {
    "job": (_flip_row("jobs"), "job 'a-1' (number 1) is damaged in the database"),
    "event": (_flip_row("events"), "event 1 of job 'a-1' is damaged in the database"),
    "history": (_flip_row("history"), "the history of job 'a-1' at step 1"),
    "receipt": (_flip_row("receipts"), "the receipt of job 'a-1' is damaged"),
    "data set": (_flip_row("datasets"), "data set 'digits' is damaged in the database"),
    "model": (_flip_row("models"), "model 'a-1' (number 1) is damaged in the database"),
    "features": (_flip_file("datasets/digits/features.npy"), "data set 'digits' is damaged: "),
    "targets": (_flip_file("datasets/digits/targets.npy"), "data set 'digits' is damaged: "),
    "statistics": (_flip_file("datasets/digits/statistics.npz"), "statistics.npz has SHA-256"),
    "weights": (_flip_file("models/a-1.safetensors"), "the file of model a-1 is damaged"),
    "checkpoint": (_flip_file(CHECKPOINT), "checkpoint 000000000002-000001.safetensors is not what was written"),
    "digest of a checkpoint": (_flip_file(f"{CHECKPOINT}.sha256"), "the SHA-256 beside it is not its own"),
    "no features": (_remove("datasets/digits/features.npy"), "data set 'digits' is gone"),
    "no data set": (_remove("datasets/digits"), "job 'a-1' needs data set 'digits', which is gone"),
    "no model": (_remove("models/a-1.safetensors"), "the file of model a-1 is gone"),
    "no checkpoint": (_remove(CHECKPOINT), ""),
    "no database": (_remove("nablad.sqlite3"), "the database is gone"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_whatever_is_damaged_is_named(data: Path, check: Callable[[], Result], kind: str) -> None:
    """A flipped bit in each kind of thing, and each that is gone: a line with what to do, and exit code 1."""
    damage, sentence = DAMAGE[kind]
    damage(data)
    told = check()
    lines = [line for line in told.output.splitlines() if line.startswith("damaged: ")]
    if not sentence:  # that the older one is used is told of nobody: which ones there were is written nowhere
        assert (told.exit_code, lines) == (0, [])
        return
    assert told.exit_code == 1
    assert any(sentence in line for line in lines), told.output
    assert all("restore" in line or "add it again" in line for line in lines)
    assert told.output.splitlines()[-1].startswith(f"nablad check: damaged: {len(lines)}, notes: ")


def test_every_page_of_the_database_is_looked_at(data: Path, check: Callable[[], Result]) -> None:
    """A page that is zeros, wherever it is: the structure is damaged, or there is no database any more."""
    content = (data / "nablad.sqlite3").read_bytes()
    for start in range(0, len(content), 4096):
        (data / "nablad.sqlite3").write_bytes(content[:start] + bytes(4096) + content[start + 4096 :])
        told = check()
        assert told.exit_code == 1, start
        assert "damaged: " in told.output
        assert "Traceback" not in told.output


def test_what_nobody_needs_is_a_note(data: Path, check: Callable[[], Result]) -> None:
    """Nothing is lost by it, and nothing is removed."""
    (data / "models" / "b.safetensors").touch()
    (data / "datasets" / "other").mkdir()
    (data / "checkpoints" / "b").mkdir()
    (data / "staging" / "half").mkdir()
    told = check()
    assert told.exit_code == 0
    assert sum(line.startswith("note: ") for line in told.output.splitlines()) == 3
    assert all((data / name).exists() for name in ("models/b.safetensors", "datasets/other", "staging/half"))


@pytest.mark.parametrize("table", ["events", "history", "receipts"])
def test_rows_that_are_lost_are_missed(data: Path, check: Callable[[], Result], table: str) -> None:
    """Of jobs that have ended: what is left of the database looks as if nothing had been there."""
    with closing(Database(data / "nablad.sqlite3")) as database:
        JobStore(database, lambda: NOW).move("a-1", FAILED, "test")
        database.rows(f"DELETE FROM {table} WHERE job_id = 'a-1'")  # noqa: S608 (our names)
    told = check()
    assert told.exit_code == 1
    assert "job 'a-1' has lost events, points of its history or its receipt" in told.output


def test_what_a_deletion_left_is_a_note(data: Path, check: Callable[[], Result]) -> None:
    """Jobs are deleted piece by piece, the first pieces first; a crash may come between."""
    with closing(Database(data / "nablad.sqlite3")) as database, database.without_cascade():
        database.rows("DELETE FROM jobs")
        database.rows("DELETE FROM events WHERE number < 3")
    shutil.rmtree(data / "checkpoints" / "a-1")
    told = check()
    assert told.exit_code == 0
    (note, _) = told.output.splitlines()
    assert note.startswith("note: the database has rows of job 'a-1', which is not there: the next start removes")


@pytest.mark.parametrize("table", ["jobs", "datasets", "models"])
def test_what_a_damaged_row_names_is_no_orphan(data: Path, check: Callable[[], Result], table: str) -> None:
    """Nobody is told to remove it."""
    _flip_row(table)(data)
    lines = check().output.splitlines()
    assert [line[:8] for line in lines[:-1]] == ["damaged:"]


def test_old_entries_have_fewer_digests(data: Path, check: Callable[[], Result]) -> None:
    """What an earlier release registered is read and accepted, with a note; an earlier schema is not looked through."""
    with closing(Database(data / "nablad.sqlite3")) as database:
        catalogue = DatasetCatalogue(database)
        dataset = catalogue.get("digits")
        catalogue.delete("digits")
        dataset.ClearField("statistics_sha256")
        catalogue.add(dataset)
    told = check()
    assert told.exit_code == 0
    assert "note: data set 'digits' was registered by an earlier release" in told.output
    with closing(sqlite3.connect(data / "nablad.sqlite3")) as connection:
        connection.execute("PRAGMA user_version = 3")
    told = check()
    assert told.exit_code == 0
    assert "has schema 3 of an earlier release" in told.output


@pytest.fixture
def used(data: Path) -> Iterator[None]:
    """A service uses the data directory."""
    with closing(DataDirectory(data)):
        yield


@pytest.mark.usefixtures("used")
def test_a_directory_in_use_is_not_looked_through(check: Callable[[], Result]) -> None:
    """It says by whom, with an exit code of its own."""
    told = check()
    assert told.exit_code == 2
    assert "another nablad (process " in told.output


def test_a_directory_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """A mistyped --data-dir is no directory without damage."""
    told = CliRunner().invoke(main, ["check", "--data-dir", str(tmp_path / "nowhere")])
    assert told.exit_code == 2
    assert "there is no data directory" in told.output
    assert not (tmp_path / "nowhere").exists()
