"""The gRPC side of the cluster process, over a real socket, on a cluster of the test's making."""

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
from workers.worker import SECRET_KEY

RESERVE = cluster_pb.RunFleetRequest(reserve=cluster_pb.Reservation(workers=2, cpus_per_worker=1))
SECRET = "secret"  # noqa: S105 (of processes that only exist here)
METADATA = ((SECRET_KEY, SECRET),)
LAUNCH = cluster_pb.RunFleetRequest(launch=cluster_pb.Launch(assignment=ps_pb.Assignment(job_id="a")))


NODES = cluster_pb.ListNodesRequest()
METHODS = cluster_pb.DESCRIPTOR.services_by_name["ClusterService"].methods_by_name


class FakeFleet:
    """Starts when the test says so, and goes on until the test ends it."""

    def __init__(self) -> None:
        self.address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.end: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()
        self.wanted: asyncio.Queue[int] = asyncio.Queue()
        self.stopped = asyncio.Event()

    async def start(self, assignment: ps_pb.Assignment, secret: str) -> str:
        return await self.address

    def set_workers(self, workers: int) -> None:
        self.wanted.put_nowait(workers)

    async def failure(self) -> NoReturn:
        await self.end
        raise AssertionError

    async def stop(self) -> None:
        self.stopped.set()


class FakeCluster:
    """Has room for one fleet, or for none."""

    def __init__(self) -> None:
        self.fleet: FakeFleet | None = FakeFleet()

    async def nodes(self) -> list[cluster_pb.Node]:
        return [cluster_pb.Node(cpus=2, free_cpus=1)]

    async def reserve(self, workers: int, cpus_per_worker: int) -> FakeFleet | None:
        return self.fleet


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


async def _news(call: Any) -> str | None:
    """What the next message tells; None at the end."""
    response = await call.read()
    return None if response is grpc.aio.EOF else response.WhichOneof("news")


async def test_no_room_ends_the_call() -> None:
    """With one message."""
    cluster = FakeCluster()
    cluster.fleet = None
    async with _served(cluster) as stub:
        call = stub.RunFleet(metadata=METADATA)
        await call.write(RESERVE)
        assert (await call.read()).reserved is False
        assert await _news(call) is None


@pytest.mark.parametrize("launched", [False, True])
@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_fleet_is_stopped_when_its_caller_has_finished_or_is_gone(launched: bool, cancelled: bool) -> None:
    """Before it was started, and while it is being started."""
    cluster = FakeCluster()
    assert cluster.fleet is not None
    async with _served(cluster) as stub:
        call = stub.RunFleet(metadata=METADATA)
        await call.write(RESERVE)
        assert (await call.read()).reserved
        if launched:
            await call.write(LAUNCH)
        if cancelled:
            call.cancel()
        else:
            await call.done_writing()
            assert await _news(call) is None
        await cluster.fleet.stopped.wait()


@pytest.mark.parametrize(
    ("end", "news"),
    [
        (AttemptLost("gone", cause="worker", error_lines="last"), "lost"),
        (AttemptFailed("wrong", error_lines="last"), "failed"),
    ],
)
async def test_a_fleet_is_launched_told_its_number_and_its_end_is_told(end: Exception, news: str) -> None:
    """The end is the last message, and then everything is stopped."""
    cluster = FakeCluster()
    fleet = cluster.fleet
    assert fleet is not None
    async with _served(cluster) as stub:
        call = stub.RunFleet(metadata=METADATA)
        await call.write(RESERVE)
        assert (await call.read()).reserved
        await call.write(LAUNCH)
        fleet.address.set_result("host:1")
        assert (await call.read()).address == "host:1"
        await call.write(cluster_pb.RunFleetRequest(workers=3))
        assert await fleet.wanted.get() == 3
        fleet.end.set_exception(end)
        response = await call.read()
        told = getattr(response, news)
        assert (response.WhichOneof("news"), told.reason, told.last_error_lines) == (news, str(end), "last")
        assert await _news(call) is None
        assert fleet.stopped.is_set()


async def test_a_start_that_fails_is_told() -> None:
    """In place of the address."""
    cluster = FakeCluster()
    assert cluster.fleet is not None
    async with _served(cluster) as stub:
        call = stub.RunFleet(metadata=METADATA)
        await call.write(RESERVE)
        assert (await call.read()).reserved
        await call.write(LAUNCH)
        cluster.fleet.address.set_exception(AttemptFailed("no such layer"))
        assert (await call.read()).failed.reason == "no such layer"


@pytest.mark.parametrize("metadata", [(), ((SECRET_KEY, ""),), ((SECRET_KEY, "Secret"),)])
async def test_a_call_without_the_secret_is_refused(metadata: tuple[tuple[str, str], ...]) -> None:
    """By every method, before it does anything."""
    cluster = FakeCluster()
    assert cluster.fleet is not None
    async with _served(cluster) as stub:
        calls = {name: getattr(stub, name) for name in METHODS}
        for name, call in calls.items():
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await (call(metadata=metadata).read() if name == "RunFleet" else call(NODES, metadata=metadata))
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert (await stub.ListNodes(NODES, metadata=METADATA)).nodes
    assert not cluster.fleet.stopped.is_set()
