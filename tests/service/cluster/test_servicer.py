"""ClusterService over a real socket, on a fake cluster."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

import grpc
import pytest

from nablad.v1 import cluster_pb2 as cluster_pb
from nablad.v1 import cluster_pb2_grpc as cluster_grpc
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.cluster.servicer import ClusterServicer
from service.errors import AttemptFailed, AttemptLost
from workers.transport.session import SECRET_KEY

RESERVE = cluster_pb.RunJobProcessesRequest(reserve=cluster_pb.Reservation(workers=2, cpus_per_worker=1))
SECRET = "secret"  # noqa: S105 (of processes that only exist here)
METADATA = ((SECRET_KEY, SECRET),)
LAUNCH = cluster_pb.RunJobProcessesRequest(launch=cluster_pb.Launch(assignment=ps_pb.Assignment(job_id="a")))


NODES = cluster_pb.ListNodesRequest()
METHODS = cluster_pb.DESCRIPTOR.services_by_name["ClusterService"].methods_by_name


class FakeJobProcesses:
    """Processes that start and end when the test says so."""

    def __init__(self) -> None:
        self.address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.end: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()
        self.scaled: asyncio.Queue[int] = asyncio.Queue()
        self.stopped = asyncio.Event()

    async def start(self, assignment: ps_pb.Assignment, secret: str) -> str:
        return await self.address

    async def scale_workers(self, workers: int) -> None:
        self.scaled.put_nowait(workers)

    async def wait_for_failure(self) -> NoReturn:
        await self.end
        raise AssertionError

    async def stop(self) -> None:
        self.stopped.set()


class FakeCluster:
    """Has room for one processes, or for none."""

    def __init__(self) -> None:
        self.processes: FakeJobProcesses | None = FakeJobProcesses()

    async def list_nodes(self) -> list[cluster_pb.Node]:
        return [cluster_pb.Node(cpus=2, free_cpus=1)]

    async def reserve_cpus(self, workers: int, cpus_per_worker: int) -> FakeJobProcesses | None:
        return self.processes


@asynccontextmanager
async def _served(cluster: FakeCluster) -> AsyncIterator[Any]:
    with tempfile.TemporaryDirectory() as folder:
        server = grpc.aio.server()
        servicer = ClusterServicer(cluster, SECRET)
        cluster_grpc.add_ClusterServiceServicer_to_server(servicer, server)
        server.add_insecure_port(f"unix:{Path(folder, 'socket')}")
        await server.start()
        async with asyncio.timeout(30), grpc.aio.insecure_channel(f"unix:{Path(folder, 'socket')}") as channel:
            yield cluster_grpc.ClusterServiceStub(channel)
            await servicer.close()
        await server.stop(None)


async def _next_event(call: Any) -> str | None:
    """Reads the kind of the next message; None at the end."""
    response = await call.read()
    return None if response is grpc.aio.EOF else response.WhichOneof("event")


async def test_no_room_ends_the_call() -> None:
    """The only message says that no CPUs are reserved."""
    cluster = FakeCluster()
    cluster.processes = None
    async with _served(cluster) as stub:
        call = stub.RunJobProcesses(metadata=METADATA)
        await call.write(RESERVE)
        assert (await call.read()).reserved is False
        assert await _next_event(call) is None


@pytest.mark.parametrize("launched", [False, True])
@pytest.mark.parametrize("cancelled", [False, True])
async def test_processes_are_stopped_when_their_caller_has_finished_or_is_gone(launched: bool, cancelled: bool) -> None:
    """Both before they were started and while they start."""
    cluster = FakeCluster()
    assert cluster.processes is not None
    async with _served(cluster) as stub:
        call = stub.RunJobProcesses(metadata=METADATA)
        await call.write(RESERVE)
        assert (await call.read()).reserved
        if launched:
            await call.write(LAUNCH)
        if cancelled:
            call.cancel()
        else:
            await call.done_writing()
            assert await _next_event(call) is None
        await cluster.processes.stopped.wait()


@pytest.mark.parametrize(
    ("end", "event"),
    [
        (AttemptLost("gone", cause="worker", error_lines="last"), "lost"),
        (AttemptFailed("wrong", error_lines="last"), "failed"),
    ],
)
async def test_processes_are_started_and_scaled_and_their_end_is_reported(end: Exception, event: str) -> None:
    """The end is the last message, and then all processes are stopped."""
    cluster = FakeCluster()
    processes = cluster.processes
    assert processes is not None
    async with _served(cluster) as stub:
        call = stub.RunJobProcesses(metadata=METADATA)
        await call.write(RESERVE)
        assert (await call.read()).reserved
        await call.write(LAUNCH)
        processes.address.set_result("host:1")
        assert (await call.read()).address == "host:1"
        await call.write(cluster_pb.RunJobProcessesRequest(workers=3))
        assert await processes.scaled.get() == 3
        processes.end.set_exception(end)
        response = await call.read()
        reported = getattr(response, event)
        assert (response.WhichOneof("event"), reported.reason) == (event, str(end))
        assert reported.last_error_lines == "last"
        assert await _next_event(call) is None
        assert processes.stopped.is_set()


async def test_a_failed_start_is_reported() -> None:
    """The failure is sent in place of the address."""
    cluster = FakeCluster()
    assert cluster.processes is not None
    async with _served(cluster) as stub:
        call = stub.RunJobProcesses(metadata=METADATA)
        await call.write(RESERVE)
        assert (await call.read()).reserved
        await call.write(LAUNCH)
        cluster.processes.address.set_exception(AttemptFailed("no such layer"))
        assert (await call.read()).failed.reason == "no such layer"


@pytest.mark.parametrize("metadata", [(), ((SECRET_KEY, ""),), ((SECRET_KEY, "Secret"),)])
async def test_a_call_without_the_secret_is_rejected(metadata: tuple[tuple[str, str], ...]) -> None:
    """Every method rejects it before anything else."""
    cluster = FakeCluster()
    assert cluster.processes is not None
    async with _served(cluster) as stub:
        calls = {name: getattr(stub, name) for name in METHODS}
        for name, call in calls.items():
            with pytest.raises(grpc.aio.AioRpcError) as rejected:
                await (call(metadata=metadata).read() if name == "RunJobProcesses" else call(NODES, metadata=metadata))
            assert rejected.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert (await stub.ListNodes(NODES, metadata=METADATA)).nodes
    assert not cluster.processes.stopped.is_set()
