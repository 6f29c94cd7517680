"""A disk without a free byte: what frees room or stops work is written, what needs room is rejected."""

import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import models_pb2 as models_pb
from service.daemon.cli import main
from service.daemon.startup import clean_up_after_crash
from service.storage.data_directory import DataDirectory
from service.storage.reserve import RESERVE_BYTES, Reserve
from service.stores.catalogues import DatasetCatalogue, ModelCatalogue
from service.stores.database import Database
from service.stores.job_states import CANCELLED, FAILED, PAUSED, QUEUED, RUNNING, STARTING, SUCCEEDED, State
from service.stores.jobs import JobStore

SPEC = spec_pb.JobSpec(name="a", distribution=spec_pb.DistributionSpec(workers=4, cpus_per_worker=1))


class Stores:
    """All stores on one database, with a reserve on the same disk."""

    def __init__(self, folder: Path) -> None:
        self.reserve = Reserve(folder / "reserve")
        self.database = Database(folder / "nablad.sqlite3", reserve=self.reserve)
        self.jobs = JobStore(self.database, lambda: datetime.now(UTC))
        self.datasets = DatasetCatalogue(self.database)
        self.models = ModelCatalogue(self.database)

    def running(self) -> str:
        job_id = self.jobs.create(SPEC, "").job_id
        self.jobs.move(job_id, STARTING, "test")
        self.jobs.move(job_id, RUNNING, "test")
        return job_id


@contextmanager
def _opened(folder: Path) -> Iterator[Stores]:
    stores = Stores(folder)
    try:
        yield stores
    finally:
        stores.database.close()


@pytest.fixture
def stores(disk: Any) -> Iterator[Stores]:
    """On the small disk."""
    with _opened(disk.path) as stores:
        yield stores


def _held(folder: Path) -> int:
    return (folder / "reserve").stat().st_blocks * 512


@pytest.mark.parametrize("state", [CANCELLED, PAUSED, QUEUED, FAILED, SUCCEEDED])
def test_a_job_can_be_stopped(disk: Any, stores: Stores, state: State) -> None:
    """Whatever becomes of it; it says why, in an event too."""
    job_id = stores.running()
    disk.fill()
    stores.jobs.move(job_id, state, "because")
    assert (stores.jobs.get(job_id).state, stores.jobs.get(job_id).reason) == (state, "because")
    assert stores.jobs.events(job_id, 1)[-1].message.endswith("because")


def test_things_can_be_deleted(disk: Any, stores: Stores) -> None:
    """Jobs, data sets and models."""
    job_id = stores.running()
    stores.jobs.move(job_id, FAILED, "test")
    stores.datasets.add(datasets_pb.Dataset(name="d"))
    stores.models.add(models_pb.Model(model_id="m"))
    disk.fill()
    stores.jobs.delete(job_id)
    stores.datasets.delete("d")
    stores.models.delete("m")
    assert (stores.jobs.ids(), stores.datasets.names(), stores.models.ids()) == ([], [], set())


def test_a_job_gives_workers_back(disk: Any, stores: Stores) -> None:
    """Fewer of them, but not more."""
    job_id = stores.running()
    disk.fill()
    assert stores.jobs.set_workers(job_id, 1, "fewer").spec.distribution.workers == 1
    disk.fill()
    with pytest.raises(sqlite3.OperationalError, match="full"):
        stores.jobs.set_workers(job_id, 2, "more")


@pytest.mark.parametrize(
    "ask",
    [
        lambda stores, _: stores.jobs.create(SPEC, ""),
        lambda stores, job_id: stores.jobs.append_event(job_id, "notice", notice=True),
        lambda stores, job_id: stores.jobs.move(job_id, RUNNING, "it starts"),
        lambda stores, _: stores.datasets.add(datasets_pb.Dataset(name="d")),
        lambda stores, _: stores.models.add(models_pb.Model(model_id="m")),
        lambda stores, job_id: stores.jobs.save_receipt(jobs_pb.Receipt(job_id=job_id)),
    ],
    ids=["submit", "event", "run", "dataset", "model", "receipt"],
)
def test_what_needs_room_is_refused_and_takes_none_of_the_reserve(
    disk: Any, stores: Stores, ask: Callable[[Stores, str], object]
) -> None:
    """Nothing of it is written."""
    job_id = stores.jobs.create(SPEC, "").job_id
    stores.jobs.move(job_id, STARTING, "test")
    disk.fill()
    before = _held(disk.path)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        ask(stores, job_id)
    assert _held(disk.path) == before >= RESERVE_BYTES
    assert len(stores.jobs.ids()) == 1


def test_a_paused_or_failed_job_does_not_go_on(disk: Any, stores: Stores) -> None:
    """To resume it or to try it again is new work."""
    for state in (PAUSED, FAILED):
        job_id = stores.running()
        stores.jobs.move(job_id, state, "test")
        disk.fill()
        with pytest.raises(sqlite3.OperationalError, match="full"):
            stores.jobs.move(job_id, QUEUED, "again")
        disk.filler.unlink()


def test_the_reserve_lasts_and_is_whole_again_when_there_is_room(disk: Any, stores: Stores) -> None:
    """Through 200 commands on a disk that something else fills whenever a byte is free."""
    ids = [stores.jobs.create(SPEC, "").job_id for _ in range(100)]
    disk.fill()
    for job_id in ids:
        stores.jobs.move(job_id, CANCELLED, "test")
        disk.fill()
        stores.jobs.delete(job_id)
        disk.fill()
    assert stores.jobs.ids() == []
    assert 0 < _held(disk.path) < RESERVE_BYTES
    disk.filler.unlink()
    stores.reserve.refill()
    assert _held(disk.path) >= RESERVE_BYTES


def test_its_use_is_logged_once(disk: Any, stores: Stores, caplog: pytest.LogCaptureFixture) -> None:
    """When it begins and when it is over, however many commands need it."""
    caplog.set_level("INFO", "service.storage.reserve")
    for _ in range(3):
        job_id = stores.running()
        disk.fill()
        for state in (PAUSED, CANCELLED):
            stores.jobs.move(job_id, state, "test")
            disk.fill()
        disk.filler.unlink()
        stores.reserve.refill()
        stores.reserve.refill()
    used = "the disk is full: what frees room or stops work lives on the reserve from now on; make room"
    assert caplog.messages == [used, "the reserve on the disk has its 16,777,216 bytes again"] * 3


def test_a_job_with_more_rows_than_the_reserve_has_room_for_can_be_deleted(disk: Any, stores: Stores) -> None:
    """It goes piece by piece; what a crash leaves of it goes with the next one."""
    job_id = stores.running()
    reason = "x" * 4000
    for epoch in range(6000):
        progress, point = jobs_pb.Progress(epoch=epoch), jobs_pb.HistoryPoint(step=epoch)
        if epoch % 1000 == 0:
            ends: list[Any] = []
        ends.append((progress, point, reason))
        if epoch % 1000 == 999:
            stores.jobs.append_history(job_id, ends, [])
    stores.jobs.move(job_id, FAILED, "test")
    assert (disk.path / "nablad.sqlite3").stat().st_size > 1.2 * RESERVE_BYTES
    disk.fill()
    stores.jobs.delete(job_id)
    for table in ("jobs", "events", "history"):
        assert stores.database.rows(f"SELECT count(*) FROM {table}") == [(0,)]  # noqa: S608 (our names)
    assert _held(disk.path) > RESERVE_BYTES / 4


def test_a_service_that_was_killed_starts_on_a_full_disk(disk: Any) -> None:
    """The log that it left is read, which takes a file more; its jobs can be taken off."""
    with _opened(disk.path) as stores:
        job_id = stores.running()
        # A kill leaves the log, and no index of it.
        crashed = disk.path / "crashed"
        crashed.mkdir()
        for file in ("nablad.sqlite3", "nablad.sqlite3-wal"):
            (crashed / file).write_bytes((disk.path / file).read_bytes())
    (disk.path / "reserve").rename(crashed / "reserve")
    disk.fill()
    with _opened(crashed) as stores:
        stores.jobs.move(job_id, QUEUED, "the service was restarted")
        assert stores.jobs.get(job_id).state == QUEUED


@pytest.mark.parametrize("has_reserve", [True, False])
def test_tidying_up_keeps_no_service_from_starting(disk: Any, stores: Stores, *, has_reserve: bool) -> None:
    """It writes; and what cannot be written waits for another start."""
    stores.running()
    directory = DataDirectory(disk.path / "data")
    if not has_reserve:
        (disk.path / "reserve").unlink()
    disk.fill()
    clean_up_after_crash(directory, stores.jobs, stores.models)
    directory.close()


def test_a_full_disk_is_no_damage(disk: Any) -> None:
    """Opening the database takes room; what cannot be looked through is not called damaged."""
    with closing(DataDirectory(disk.path / "data")) as directory, closing(Database(directory.database)):
        pass
    disk.fill()
    told = CliRunner().invoke(main, ["check", "--data-dir", str(disk.path / "data")])
    assert told.exit_code == 2
    assert "because its disk is full" in told.output
    assert "backup" not in told.output


def test_the_same_without_being_root(as_root_of_a_namespace: list[str]) -> None:
    """All of this, by a user who may mount nothing, in a namespace where he may."""
    command = [*as_root_of_a_namespace, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__).parent)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stdout[-3000:]
    assert " passed" in ran.stdout
