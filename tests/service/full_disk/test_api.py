"""A full disk, through the API: what the errors advise can be done, and the service says the truth about its jobs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import grpc
import numpy as np
import pytest

from nablad import Client
from nablad.errors import TooLargeError
from nablad.v1 import cluster_pb2 as cluster_pb
from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import datasets_pb2_grpc as datasets_grpc
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import jobs_pb2_grpc as jobs_grpc
from nablad.v1 import models_pb2 as models_pb
from nablad.v1 import models_pb2_grpc as models_grpc
from service.api.datasets import DatasetServicer
from service.api.jobs import JobServicer
from service.api.models import ModelServicer
from service.cluster.capacity import NodeCache
from service.control.admission import Admission
from service.control.controller import Controller
from service.control.interfaces import Ending
from service.control.submission import Submission
from service.control.warm_start import WarmStarts
from service.datasets import StagedFile, store_dataset
from service.events.live_status import LiveStatus
from service.events.publisher import EventPublisher
from service.events.watches import Watches
from service.storage.data_directory import DataDirectory
from service.storage.reserve import Reserve
from service.stores.catalogues import DatasetCatalogue, ModelCatalogue
from service.stores.database import Database
from service.stores.job_states import ACTIVE, FAILED, RUNNING, STARTING, state_name
from service.stores.jobs import JobStore

SPEC = spec_pb.JobSpec(
    name="a",
    data=spec_pb.DataSpec(train="d"),
    model=spec_pb.ModelSpec(layers=[6, 4, 3]),
    training=spec_pb.TrainingSpec(epochs=1, batch_size=10),
    distribution=spec_pb.DistributionSpec(workers=2),
)
LARGE_BYTES = 2 << 20


class Cluster:
    """Has CPUs for every job, and is its own job processes."""

    async def list_nodes(self) -> list[cluster_pb.Node]:
        return [cluster_pb.Node(cpus=8, free_cpus=8)]

    async def reserve_cpus(self, *_: int) -> "Cluster":
        return self

    async def start(self, *_: object) -> str:
        raise AssertionError("attempts of these tests start nothing")

    async def wait_for_failure(self) -> NoReturn:
        raise AssertionError("attempts of these tests do not fail by their processes")

    async def scale_workers(self, *_: object) -> None:
        raise AssertionError("attempts of these tests start nothing")

    async def stop(self) -> None:
        """Nothing runs."""


class Attempt:
    """Runs until it is withdrawn; a checkpoint finds no room."""

    def __init__(self, events: EventPublisher, job_id: str) -> None:
        self._events = events
        self._job_id = job_id

    async def run(self) -> Ending:
        self._events.move_job(self._job_id, RUNNING, "test")
        await asyncio.Event().wait()
        raise AssertionError

    async def checkpoint(self) -> jobs_pb.Checkpoint | None:
        raise OSError(28, "No space left on device")

    async def scale_workers(self) -> None:
        """Nobody works."""

    async def clean_up(self) -> None:
        """There is nothing."""


class Service:
    """The service without its cluster, on the small disk.

    Attributes:
        client: Of its API.
    """

    client: Client

    def __init__(self, disk: Any) -> None:
        self.disk = disk
        self.directory = DataDirectory(disk.path / "data")
        self.reserve = Reserve(self.directory.reserve)
        self.database = Database(self.directory.database, reserve=self.reserve)
        self.jobs = JobStore(self.database, lambda: datetime.now(UTC))
        self.live = LiveStatus(lambda: 0.0)
        self.events = EventPublisher(self.jobs, self.live.receive)
        self.datasets, self.models = DatasetCatalogue(self.database), ModelCatalogue(self.database)
        cluster = Cluster()
        self.nodes = NodeCache(cluster, lambda: 0.0)
        self.controller = Controller(
            self.jobs,
            self.events,
            cluster,
            lambda job, _: Attempt(self.events, job.job_id),
            lambda: datetime.now(UTC),
            lambda: 0.0,
            Admission(),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = grpc.aio.server()
        submission = Submission(
            self.directory, self.jobs, self.events, self.datasets, WarmStarts(self.directory, self.jobs, self.models)
        )
        watches = Watches(self.jobs, self.live, lambda: 0.0, 0.0)
        jobs_grpc.add_JobServiceServicer_to_server(
            JobServicer(self.directory, self.jobs, self.live, submission, self.controller, watches, self.nodes),
            server,
        )
        datasets_grpc.add_DatasetServiceServicer_to_server(
            DatasetServicer(self.directory, self.datasets, self.jobs, lambda: datetime.now(UTC)), server
        )
        models_grpc.add_ModelServiceServicer_to_server(ModelServicer(self.directory, self.models), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        controller = asyncio.create_task(self.controller.run())
        try:
            with Client(f"127.0.0.1:{port}") as self.client:
                yield
        finally:
            controller.cancel()
            with suppress(asyncio.CancelledError):
                await controller
            await server.stop(None)

    async def call(self, method: str, *arguments: object) -> Any:
        """A call of the client's."""
        return await asyncio.to_thread(getattr(self.client, method), *arguments)

    async def wait_for(self, job_id: str, state: str) -> None:
        async with asyncio.timeout(60):
            while state_name(self.jobs.get(job_id).state) != state:
                await self.live.next_change(job_id).wait()

    async def submit_running(self) -> str:
        job_id = str((await self.call("submit", SPEC)).job_id)
        await self.wait_for(job_id, "running")
        return job_id

    def keep_model(self, model_id: str) -> None:
        self.models.add(models_pb.Model(model_id=model_id))
        self.directory.model(model_id).write_bytes(bytes(LARGE_BYTES))

    def keep_dataset(self, name: str) -> None:
        self.datasets.add(datasets_pb.Dataset(name=name))
        self.directory.dataset(name).mkdir()
        (self.directory.dataset(name) / "features.npy").write_bytes(bytes(LARGE_BYTES))


@asynccontextmanager
async def _play(disk: Any, tmp_path: Path) -> AsyncIterator[Service]:
    service = Service(disk)
    file = tmp_path / "d.npz"
    np.savez(file, x=np.random.default_rng(0).normal(size=(30, 6)), y=np.arange(30) % 3)
    stored = store_dataset([StagedFile(file.name, file)], datasets_pb.DataFiles(), service.directory.dataset("d"))
    service.datasets.add(datasets_pb.Dataset(name="d", **asdict(stored)))
    try:
        async with service.running():
            yield service
    finally:
        service.database.close()
        service.directory.close()


async def test_what_the_service_advises_makes_room(disk: Any, tmp_path: Path) -> None:
    """Jobs are cancelled and paused, jobs, data sets and models deleted; then new work is accepted again."""
    async with _play(disk, tmp_path) as service:
        cancelled, paused = await service.submit_running(), await service.submit_running()
        service.keep_model("m")
        service.keep_dataset("spare")
        disk.fill()
        with pytest.raises(TooLargeError, match="disk is full: make room there"):
            await service.call("submit", SPEC)
        assert (await service.call("cancel", cancelled)).reason == "cancelled by a client"
        disk.fill()
        reason = "paused by a client; no checkpoint could be taken: it goes on from the one before"
        assert (await service.call("pause", paused)).reason == reason
        disk.fill()
        with pytest.raises(TooLargeError, match="disk is full"):
            await service.call("resume", paused)
        await service.call("cancel", paused)
        for job_id in (cancelled, paused):
            disk.fill()
            await service.call("delete_job", job_id)
        disk.fill()
        await service.call("delete_model", "m")
        assert disk.free_bytes() > LARGE_BYTES / 2
        disk.fill()
        await service.call("delete_dataset", "spare")
        assert disk.free_bytes() > LARGE_BYTES / 2
        assert (await service.call("submit", SPEC)).reason == "waits for its turn"


async def test_the_service_drains_on_a_full_disk(disk: Any, tmp_path: Path) -> None:
    """The next start goes on with its jobs as after any end."""
    async with _play(disk, tmp_path) as service:
        jobs = [await service.submit_running() for _ in range(3)]
        disk.fill()
        await service.controller.drain()
        assert {state_name(service.jobs.get(job_id).state) for job_id in jobs} == {"queued"}
        assert service.jobs.get(jobs[0]).reason.startswith("the service goes away; no checkpoint could be taken")


@pytest.mark.parametrize(
    ("ask", "state", "reason"),
    [("cancel", "cancelled", "cancelled by a client"), ("pause", "paused", "paused by a client; no checkpoint")],
)
async def test_without_a_reserve_the_truth_is_written_later(
    disk: Any, tmp_path: Path, ask: str, state: str, reason: str
) -> None:
    """What a client asked for is done; he is told that it is not written down, it is told meanwhile, and then kept."""
    async with _play(disk, tmp_path) as service:
        job_id = await service.submit_running()
        service.directory.reserve.unlink()
        disk.fill()
        with pytest.raises(TooLargeError, match=f"job {job_id} has no processes any more, but"):
            await service.call(ask, job_id)
        told = await service.call("job", job_id)
        assert told.state in ACTIVE
        assert told.reason.startswith(reason)
        assert "not written down yet" in told.reason
        disk.filler.unlink()
        service.controller.wake()
        await service.wait_for(job_id, state)
        job = service.jobs.get(job_id)
        assert job.reason.startswith(reason)
        assert job.attempt == 1
        assert "restarted" not in " ".join(event.message for event in service.jobs.events(job_id, 1))


async def test_the_end_of_the_service_is_the_last_chance(
    disk: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What was kept in memory is written down if there is room by then; else the log says what is lost."""
    async with _play(disk, tmp_path) as service:
        job_id = await service.submit_running()
        service.directory.reserve.unlink()
        disk.fill()
        with pytest.raises(TooLargeError):
            await service.call("cancel", job_id)
        await service.controller.drain()
        assert f"job {job_id}: could not write that it is cancelled: database or disk is full" in caplog.text
        disk.filler.unlink()
        await service.controller.drain()
        assert service.jobs.get(job_id).reason == "cancelled by a client"


async def test_a_call_that_is_repeated_when_there_is_room_is_answered(disk: Any, tmp_path: Path) -> None:
    """Whether the service has written it down by then or not."""
    async with _play(disk, tmp_path) as service:
        job_id = await service.submit_running()
        service.directory.reserve.unlink()
        disk.fill()
        with pytest.raises(TooLargeError):
            await service.call("cancel", job_id)
        with pytest.raises(TooLargeError, match="make room there"):
            await service.call("scale", job_id, 1)
        disk.filler.unlink()
        assert (await service.call("cancel", job_id)).reason == "cancelled by a client"


async def test_the_reserve_is_kept_up(disk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as there is room, by itself."""
    monkeypatch.setattr("service.storage.reserve._REFILL_SECONDS", 0.0)
    disk.fill()
    path = disk.path / "reserve"
    reserve = Reserve(path, 1 << 20)
    assert path.stat().st_size == 0

    keeping = asyncio.create_task(reserve.keep_filled())
    for room in (True, False):
        if room:
            disk.filler.unlink()
        for _ in range(3):
            await asyncio.sleep(0)
        assert path.stat().st_size == 1 << 20
        path.unlink()
    keeping.cancel()


async def test_failed_jobs_can_be_deleted(disk: Any, tmp_path: Path) -> None:
    """With their checkpoints, which are what takes the room."""
    async with _play(disk, tmp_path) as service:
        job_id = service.jobs.create(SPEC, "").job_id
        service.jobs.move(job_id, STARTING, "test")
        service.jobs.move(job_id, FAILED, "test")
        folder = service.directory.checkpoints(job_id)
        folder.mkdir()
        (folder / f"{7:012}-000001.safetensors").write_bytes(bytes(LARGE_BYTES))
        disk.fill()
        await service.call("delete_job", job_id)
        assert disk.free_bytes() > LARGE_BYTES / 2
        assert not folder.exists()
