"""Job processes on a real Ray, through a real cluster process: placed, scaled, lost, and stopped."""

import asyncio
import os
import signal
import tempfile
import uuid
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from nablad.jobspec import complete, parse
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from service.cluster.client import ClusterClient, JobProcessesClient
from service.errors import AttemptFailed, AttemptLost
from workers.transport.session import SECRET_KEY

pytestmark = pytest.mark.system

CPUS = 4
SECRET = "secret"  # noqa: S105 (of a job of this test)
SECONDS = 60


class Ray:
    """Cluster process, and the event loop of its client."""

    def __init__(self, mark: str, folder: Path) -> None:
        self._mark = f"NABLAD_TEST_MARK={mark}".encode()
        self._loop = asyncio.new_event_loop()
        self.client = ClusterClient(None, CPUS, folder, lambda _: None)
        self.run(self.client.start())

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self._loop.run_until_complete(asyncio.wait_for(work, SECONDS))

    def close(self) -> None:
        self.run(self.client.close())
        self._loop.close()

    async def reserve_cpus(self, workers: int) -> JobProcessesClient:
        processes = await self.client.reserve_cpus(workers, 1)
        assert processes is not None
        return processes

    async def until_free(self, cpus: int) -> None:
        while [node.free_cpus for node in await self.client.list_nodes()] != [cpus]:
            pass

    def process(self, name: str) -> int:
        """Returns the id of the only process of that name."""
        found = [int(folder.name) for folder in Path("/proc").iterdir() if self._is_ours(folder, name)]
        assert len(found) == 1
        return found[0]

    def _is_ours(self, folder: Path, name: str) -> bool:
        try:
            ours = self._mark in (folder / "environ").read_bytes().split(b"\0")
            return ours and name in (folder / "cmdline").read_text()
        except OSError:  # no process, or it has ended in the meantime
            return False


@pytest.fixture(scope="module")
def ray() -> Iterator[Ray]:
    """Ray of four CPUs that the tests share."""
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="t-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NABLAD_TEST_MARK", mark)
        ray = Ray(mark, Path(folder, "ray"))
        yield ray
        ray.close()


@pytest.fixture
def job(assignment: Callable[..., ps_pb.Assignment]) -> ps_pb.Assignment:
    """Job that runs until it is stopped."""
    spec, violations = parse(
        "name: long\ndata: {train: train, validation: validation}\n"
        "model: {layers: [6, 3], output_activation: sigmoid}\n"
        "cost: {function: log_loss}\n"
        "training: {epochs: 1000000, batch_size: 16}\ndistribution: {workers: 1, micro_batches: 4}"
    )
    assert not violations
    return assignment(complete(spec, None))


def test_workers_are_scaled_up_and_down_and_all_cpus_are_released(ray: Ray, job: ps_pb.Assignment) -> None:
    """One worker becomes three, then two, as CPUs are free; a number larger than the cluster does no harm."""

    async def run() -> None:
        processes = await ray.reserve_cpus(1)
        address = await processes.start(job, SECRET)
        await ray.until_free(CPUS - 1)
        async with grpc.aio.insecure_channel(address) as channel:
            stub = ps_grpc.ParameterServerServiceStub(channel)
            for wanted, taken in ((3, 3), (9, CPUS), (2, 2)):
                await stub.SetWorkers(ps_pb.SetWorkersRequest(workers=wanted), metadata=((SECRET_KEY, SECRET),))
                await processes.scale_workers(wanted)
                await ray.until_free(CPUS - taken)
        assert await ray.client.reserve_cpus(3, 1) is None
        await processes.stop()
        again = await ray.reserve_cpus(CPUS)
        await again.stop()
        await ray.until_free(CPUS)

    ray.run(run())


def test_a_killed_parameter_server_is_a_loss(ray: Ray, job: ps_pb.Assignment) -> None:
    """It is reported at once, as a sentence without Ray's guesses."""

    async def run() -> None:
        processes = await ray.reserve_cpus(2)
        await processes.start(job, SECRET)
        os.kill(ray.process("_ParameterServerProcess"), signal.SIGKILL)
        with pytest.raises(AttemptLost, match="the parameter server was lost: ActorDiedError: ") as lost:
            await processes.wait_for_failure()
        assert lost.value.cause == "parameter_server"
        assert "Some common causes" not in str(lost.value)
        await processes.stop()
        await ray.until_free(CPUS)

    ray.run(run())


def test_a_parameter_server_that_rejects_the_job_is_a_failure(ray: Ray, job: ps_pb.Assignment) -> None:
    """The failure carries the end of the traceback."""

    async def run() -> None:
        job.spec.training.optimizer.ClearField("name")
        processes = await ray.reserve_cpus(1)
        with pytest.raises(AttemptFailed, match="the parameter server did not start: ") as failed:
            await processes.start(job, SECRET)
        assert 'File "' in failed.value.error_lines
        await processes.stop()

    ray.run(run())


def test_a_checkpoint_that_is_not_there_is_a_loss(ray: Ray, job: ps_pb.Assignment, tmp_path: Path) -> None:
    """The next attempt may start from another checkpoint."""

    async def run() -> None:
        job.start.path, job.start.sha256 = str(tmp_path / "none"), "0" * 64
        processes = await ray.reserve_cpus(1)
        with pytest.raises(AttemptLost, match="the parameter server did not start: "):
            await processes.start(job, SECRET)
        await processes.stop()

    ray.run(run())


def test_a_worker_without_its_data_is_a_failure(ray: Ray, job: ps_pb.Assignment, tmp_path: Path) -> None:
    """Its error names the directory."""

    async def run() -> None:
        job.train.directory = str(tmp_path / "nowhere")
        processes = await ray.reserve_cpus(1)
        await processes.start(job, SECRET)
        with pytest.raises(AttemptFailed, match=r"a worker failed: .*nowhere") as failed:
            await processes.wait_for_failure()
        assert "nowhere" in failed.value.error_lines
        await processes.stop()
        await ray.until_free(CPUS)

    ray.run(run())
