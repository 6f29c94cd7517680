"""Interceptors on real servers: answers that are bytes, and methods that a server does not have."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import jobs_pb2_grpc as jobs_grpc
from service.metrics.instruments import Instruments
from service.metrics.rpcs import CountCalls
from service.rpc.interceptors import RejectUnimplemented, RejectUnreadable, SendBytes

_SECONDS = 30
# An unknown service, an unknown method, and two methods that the servicer leaves out.
_MISSING = (
    "/no.such/Service",
    "/nablad.v1.JobService/NoSuch",
    "/nablad.v1.JobService/ListJobs",
    "/nablad.v1.JobService/WatchJob",
)


class _Jobs(jobs_grpc.JobServiceServicer):
    """Servicer with one method of its contract."""

    async def GetJob(self, request: Any, context: Any) -> jobs_pb.GetJobResponse:  # noqa: N802 (gRPC's)
        return jobs_pb.GetJobResponse(job=jobs_pb.Job(job_id=request.job_id))


class _Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def _call(use: Callable[[grpc.aio.Channel], Any], clock: Callable[[], float]) -> None:
    async def run() -> None:
        server = grpc.aio.server(interceptors=[RejectUnimplemented(clock)])
        jobs_grpc.add_JobServiceServicer_to_server(_Jobs(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                await use(channel)
        finally:
            await server.stop(None)

    asyncio.run(asyncio.wait_for(run(), _SECONDS))


async def _codes(channel: grpc.aio.Channel, method: str) -> set[grpc.StatusCode]:
    """Returns the codes of a unary call and of a stream.

    The stream sends nothing, because a client that still writes when the answer comes may see INTERNAL.
    """
    unary, stream = channel.unary_unary(method)(b""), channel.stream_stream(method)()
    return {await unary.code(), await stream.code()}


def _records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Leaves out the logger of asyncio, where gRPC reports that event loops of other tests shared its poller."""
    return [record for record in caplog.records if record.name != "asyncio"]


def test_many_calls_of_missing_methods_are_a_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Each is answered UNIMPLEMENTED; the log has no traceback, and a later line says how many there were."""
    clock = _Clock()

    async def use(channel: grpc.aio.Channel) -> None:
        for _ in range(25):
            for method in _MISSING:
                assert await _codes(channel, method) == {grpc.StatusCode.UNIMPLEMENTED}
        clock.seconds = 61
        await _codes(channel, "/nablad.v1.JobService/" + "x" * 5000)

    with caplog.at_level(logging.INFO):
        _call(use, clock)
    records = _records(caplog)
    assert all(record.exc_info is None for record in records)
    first, second = (record.getMessage() for record in records if record.levelno >= logging.WARNING)
    assert first == "answered UNIMPLEMENTED: this server has no method '/no.such/Service'"
    assert second.endswith("so were 199 more calls since the last such line")
    assert len(second) < 300


def test_implemented_methods_are_answered(caplog: pytest.LogCaptureFixture) -> None:
    """The log has no warning."""

    async def use(channel: grpc.aio.Channel) -> None:
        answer = await jobs_grpc.JobServiceStub(channel).GetJob(jobs_pb.GetJobRequest(job_id="a"))
        assert answer.job.job_id == "a"

    _call(use, _Clock())
    assert not [record for record in _records(caplog) if record.levelno >= logging.WARNING]


class _Answers(jobs_grpc.JobServiceServicer):
    """Answers with a message, or with the bytes of several."""

    async def GetJob(self, request: Any, context: Any) -> jobs_pb.GetJobResponse:  # noqa: N802 (gRPC's)
        return jobs_pb.GetJobResponse(job=jobs_pb.Job(job_id=request.job_id))

    async def WatchJob(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        events = [jobs_pb.WatchJobResponse(events=[jobs_pb.Event(number=number)]) for number in (1, 2, 3)]
        yield b"".join(event.SerializeToString() for event in events)
        yield events[0]


async def test_methods_may_answer_with_messages_and_with_bytes() -> None:
    """The joined bytes of several messages are one message with the entries of all."""

    async def run() -> None:
        server = grpc.aio.server(
            interceptors=[CountCalls(Instruments(CollectorRegistry())), RejectUnreadable(), SendBytes()]
        )
        jobs_grpc.add_JobServiceServicer_to_server(_Answers(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = jobs_grpc.JobServiceStub(channel)
            assert (await stub.GetJob(jobs_pb.GetJobRequest(job_id="a"))).job.job_id == "a"
            watch = stub.WatchJob(jobs_pb.WatchJobRequest(job_id="a"))
            numbers = [[event.number for event in response.events] async for response in watch]
        await server.stop(None)
        assert numbers == [[1, 2, 3], [1]]

    await asyncio.wait_for(run(), _SECONDS)
