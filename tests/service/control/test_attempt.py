"""An attempt before its processes start: what it needs is compared with what was stored."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nablad.jobspec import complete
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import models_pb2 as models_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1.metrics_pb2 import Metrics
from service.control.attempt import Attempt, AttemptContext
from service.errors import DamagedError, DatabaseRowError
from service.events.publisher import EventPublisher
from service.storage.data_directory import DataDirectory
from service.stores.catalogues import DatasetCatalogue, ModelCatalogue
from service.stores.database import Database
from service.stores.jobs import JobStore

NOW = datetime(2026, 1, 2, tzinfo=UTC)


class StartedError(Exception):
    """The attempt came so far as to start its processes."""


class FakeJobProcesses:
    """Starts nothing."""

    async def start(self, *_: object) -> str:
        raise StartedError


@pytest.fixture
def records(
    tmp_path: Path, database: Database, jobs: JobStore, data_source: Callable[..., ps_pb.DataSource]
) -> Iterator[AttemptContext]:
    """Those of a service with two data sets in `tmp_path`, and a job that uses them."""
    datasets = DatasetCatalogue(database)
    directory = DataDirectory(tmp_path / "data")
    for name in ("train", "validation"):
        source = data_source(name, rows=9)
        directory.adopt_dataset(Path(source.directory), name)
        datasets.add(source.dataset)
    data = spec_pb.DataSpec(train="train", validation="validation", scaling=spec_pb.SCALING_STANDARD)
    spec = complete(spec_pb.JobSpec(name="a", data=data), datasets.get("train"))
    jobs.create(spec, "", job_id="a-1")
    yield AttemptContext(
        directory,
        jobs,
        EventPublisher(jobs),
        datasets,
        ModelCatalogue(database),
        lambda: NOW,
    )
    directory.close()


def _attempt(records: AttemptContext) -> Attempt:
    return Attempt(records, records.jobs.get("a-1"), FakeJobProcesses())  # type: ignore[arg-type]  # all it needs of one here


@pytest.fixture
def attempt(records: AttemptContext) -> Callable[[], str]:
    """Starts an attempt of the job, as often as it is called; gives how it ended."""

    async def run() -> None:
        await _attempt(records).run()

    def start() -> str:
        try:
            asyncio.run(run())
        except (StartedError, DamagedError) as error:
            return f"{type(error).__name__}: {error}"
        raise AssertionError("nothing was raised")

    return start


def _data(tmp_path: Path, name: str) -> Path:
    return tmp_path / "data" / "datasets" / name


def test_whole_data_are_started_with(attempt: Callable[[], str]) -> None:
    """Also a second time."""
    assert [attempt(), attempt()] == ["StartedError: ", "StartedError: "]


@pytest.mark.parametrize("name", ["train", "validation"])
@pytest.mark.parametrize("file", ["features.npy", "targets.npy"])
def test_damaged_data_start_nothing(tmp_path: Path, attempt: Callable[[], str], name: str, file: str) -> None:
    """A flipped bit, or no file, also where it was whole a moment ago: said at once, with the data set's name."""
    assert attempt() == "StartedError: "
    path = _data(tmp_path, name) / file
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert attempt().startswith(f"StoredDatasetError: data set '{name}' is damaged: ")
    path.unlink()
    assert attempt().startswith(f"StoredDatasetError: data set '{name}' is gone: {path} is not there; restore it")


def test_damaged_statistics_start_nothing(tmp_path: Path, attempt: Callable[[], str]) -> None:
    """They decide how features are scaled."""
    path = _data(tmp_path, "train") / "statistics.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert attempt().startswith("StoredDatasetError: data set 'train' is damaged: ")


def test_a_folder_that_is_gone_starts_nothing(tmp_path: Path, attempt: Callable[[], str]) -> None:
    """That cannot be read is no failure to write."""
    _data(tmp_path, "train").rename(tmp_path / "away")
    assert attempt().startswith("StoredDatasetError: data set 'train' is gone: ")


@pytest.mark.parametrize("verifies", ["", "other"])
async def test_a_damaged_history_costs_no_training_that_is_done(
    records: AttemptContext, database: Database, verifies: str
) -> None:
    """The model gets the last figures, and the receipt what is left; but nothing is compared with a part of it."""
    jobs = records.jobs
    point = jobs_pb.HistoryPoint(epoch=1, step=3, training=Metrics(cost=0.5), weights_sha256="aa")
    jobs.append_history("a-1", [(jobs_pb.Progress(epoch=1), point, "epoch 1")], [])
    database.rows("UPDATE history SET body = x'00'")
    follower: Any = SimpleNamespace(progress=jobs_pb.Progress(epoch=2, training=Metrics(cost=0.25)))

    async def keep() -> tuple[models_pb.Model, jobs_pb.Receipt]:
        attempt, model = _attempt(records), models_pb.Model()
        attempt._job.verifies = verifies
        attempt._enter_metrics(follower, model, "aa")
        return model, attempt._receipt(
            ps_pb.Assignment(spec=jobs.get("a-1").spec), jobs_pb.Progress(step=6), "bb", "done"
        )

    if verifies:
        with pytest.raises(DatabaseRowError):
            await keep()
        return
    model, receipt = await keep()
    assert (model.epoch, model.training.cost) == (2, 0.25)
    assert (receipt.final_weights_sha256, list(receipt.epoch_weights_sha256)) == ("bb", [])
    assert "history of job 'a-1' at step 3" in jobs.recent_events("a-1", 1)[0].message
