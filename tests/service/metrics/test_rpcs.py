"""Calls are counted by method and outcome, on a real server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import jobs_pb2_grpc as jobs_grpc
from service.errors import Reason, ServiceError
from service.metrics.instruments import Instruments
from service.metrics.rpcs import CountCalls
from service.rpc.error_translation import answer_errors
from service.rpc.interceptors import RejectUnreadable

SECONDS = 20


@answer_errors
class Jobs(jobs_grpc.JobServiceServicer):
    """Answers, rejects, fails, and streams for ever."""

    async def GetJob(self, request: Any, context: Any) -> jobs_pb.GetJobResponse:  # noqa: N802 (gRPC's)
        if request.job_id == "unknown":
            raise ServiceError(Reason.NOT_FOUND, "there is no such job")
        if request.job_id == "broken":
            raise KeyError("a defect")
        return jobs_pb.GetJobResponse()

    async def WatchJob(self, request: Any, context: Any) -> AsyncIterator[jobs_pb.WatchJobResponse]:  # noqa: N802
        while True:
            yield jobs_pb.WatchJobResponse()
            if request.job_id == "short":
                return
            await asyncio.sleep(0.01)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def _call(registry: CollectorRegistry, use: Callable[[grpc.aio.Channel], Awaitable[None]]) -> None:
    async def run() -> None:
        interceptors = [CountCalls(Instruments(registry)), RejectUnreadable()]
        server = grpc.aio.server(interceptors=interceptors)
        jobs_grpc.add_JobServiceServicer_to_server(Jobs(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await use(channel)
        await server.stop(None)

    asyncio.run(asyncio.wait_for(run(), SECONDS))


def _rpcs(registry: CollectorRegistry, method: str, code: str) -> float | None:
    return registry.get_sample_value("nablad_rpcs_total", {"method": method, "code": code})


@pytest.mark.parametrize(("job_id", "code"), [("a", "OK"), ("unknown", "NOT_FOUND"), ("broken", "INTERNAL")])
def test_a_call_is_counted_with_its_status_and_its_time(registry: CollectorRegistry, job_id: str, code: str) -> None:
    """However it ends, once, and nothing is under way afterwards."""

    async def use(channel: grpc.aio.Channel) -> None:
        call = jobs_grpc.JobServiceStub(channel).GetJob(jobs_pb.GetJobRequest(job_id=job_id))
        assert (await call.code()).name == code

    _call(registry, use)
    assert _rpcs(registry, "JobService/GetJob", code) == 1
    labels = {"method": "JobService/GetJob"}
    assert registry.get_sample_value("nablad_rpc_seconds_count", labels) == 1
    assert registry.get_sample_value("nablad_rpcs_active", labels) == 0


def test_an_unreadable_message_is_counted_as_what_it_is_answered(registry: CollectorRegistry) -> None:
    """The rejection happens before the method."""

    async def use(channel: grpc.aio.Channel) -> None:
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary("/nablad.v1.JobService/GetJob")(b"\xff\xff")

    _call(registry, use)
    assert _rpcs(registry, "JobService/GetJob", "INVALID_ARGUMENT") == 1


def test_a_stream_counts_when_it_ends_and_is_under_way_until_then(registry: CollectorRegistry) -> None:
    """By itself, or because the client goes away; how long a watch lasts says nothing."""
    labels = {"method": "JobService/WatchJob"}

    async def use(channel: grpc.aio.Channel) -> None:
        stub = jobs_grpc.JobServiceStub(channel)
        async for _ in stub.WatchJob(jobs_pb.WatchJobRequest(job_id="short")):
            pass
        call = stub.WatchJob(jobs_pb.WatchJobRequest(job_id="long"))
        await call.read()
        assert registry.get_sample_value("nablad_rpcs_active", labels) == 1
        call.cancel()
        while registry.get_sample_value("nablad_rpcs_active", labels):  # noqa: ASYNC110 (a counter, not an event)
            await asyncio.sleep(0)

    _call(registry, use)
    assert _rpcs(registry, "JobService/WatchJob", "OK") == 1
    assert _rpcs(registry, "JobService/WatchJob", "CANCELLED") == 1
    assert registry.get_sample_value("nablad_rpc_seconds_count", labels) is None


def test_methods_that_do_not_exist_share_one_series(registry: CollectorRegistry) -> None:
    """Else whoever makes up names would make up series."""

    async def use(channel: grpc.aio.Channel) -> None:
        for name in ("a", "b"):
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary(f"/nablad.v1.JobService/{name}")(b"")

    _call(registry, use)
    assert _rpcs(registry, "unknown", "UNIMPLEMENTED") == 2
