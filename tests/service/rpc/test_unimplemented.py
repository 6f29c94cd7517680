"""Calls of methods that a server does not have: what callers are told, and what the log holds of them."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import jobs_pb2_grpc as jobs_grpc
from service.rpc.unimplemented import RejectUnimplemented

_SECONDS = 30
# None of them is there: an unknown service, an unknown method, two that the contract has and the servicer does not.
_MISSING = (
    "/no.such/Service",
    "/nablad.v1.JobService/NoSuch",
    "/nablad.v1.JobService/ListJobs",
    "/nablad.v1.JobService/WatchJob",
)


class _Jobs(jobs_grpc.JobServiceServicer):
    """Has one method."""

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
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await use(channel)
        await server.stop(None)

    asyncio.run(asyncio.wait_for(run(), _SECONDS))


async def _codes(channel: grpc.aio.Channel, method: str) -> set[grpc.StatusCode]:
    """How calls end that send one message or many and wait for one answer or many."""
    unary, stream = channel.unary_unary(method)(b""), channel.stream_stream(method)(iter([b"", b""]))
    return {await unary.code(), await stream.code()}


def _of_servers(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """But not asyncio's, through which gRPC says that event loops of other tests shared its poller."""
    return [record for record in caplog.records if record.name != "asyncio"]


def test_a_flood_of_such_calls_is_a_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Each is answered UNIMPLEMENTED; the log has no traceback, and says later how many there were."""
    clock = _Clock()

    async def use(channel: grpc.aio.Channel) -> None:
        for _ in range(25):
            for method in _MISSING:
                assert await _codes(channel, method) == {grpc.StatusCode.UNIMPLEMENTED}
        clock.seconds = 61
        await _codes(channel, "/nablad.v1.JobService/" + "x" * 5000)

    with caplog.at_level(logging.INFO):
        _call(use, clock)
    records = _of_servers(caplog)
    assert all(record.exc_info is None for record in records)
    first, second = (record.getMessage() for record in records if record.levelno >= logging.WARNING)
    assert first == "answered UNIMPLEMENTED: this server has no method '/no.such/Service'"
    assert second.endswith("so were 199 more calls since the last such line")
    assert len(second) < 300


def test_what_is_there_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    """With nothing in the log."""

    async def use(channel: grpc.aio.Channel) -> None:
        answer = await jobs_grpc.JobServiceStub(channel).GetJob(jobs_pb.GetJobRequest(job_id="a"))
        assert answer.job.job_id == "a"

    _call(use, _Clock())
    assert not [record for record in _of_servers(caplog) if record.levelno >= logging.WARNING]
