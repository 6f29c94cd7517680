"""What passes between gRPC and the service's methods, on a real server."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from prometheus_client import CollectorRegistry

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import jobs_pb2_grpc as jobs_grpc
from service.metrics.instruments import Instruments
from service.metrics.rpcs import CountCalls
from service.rpc.error_translation import RejectUnreadable, SendBytes

SECONDS = 20


class Jobs(jobs_grpc.JobServiceServicer):
    """Answers with a message, or with the bytes of some."""

    async def GetJob(self, request: Any, context: Any) -> jobs_pb.GetJobResponse:  # noqa: N802 (gRPC's)
        return jobs_pb.GetJobResponse(job=jobs_pb.Job(job_id=request.job_id))

    async def WatchJob(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        events = [jobs_pb.WatchJobResponse(events=[jobs_pb.Event(number=number)]) for number in (1, 2, 3)]
        yield b"".join(event.SerializeToString() for event in events)
        yield events[0]


async def test_methods_may_answer_with_messages_and_with_bytes() -> None:
    """Joined bytes of messages are one message with what is in all of them."""

    async def run() -> None:
        server = grpc.aio.server(
            interceptors=[CountCalls(Instruments(CollectorRegistry())), RejectUnreadable(), SendBytes()]
        )
        jobs_grpc.add_JobServiceServicer_to_server(Jobs(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = jobs_grpc.JobServiceStub(channel)
            assert (await stub.GetJob(jobs_pb.GetJobRequest(job_id="a"))).job.job_id == "a"
            watch = stub.WatchJob(jobs_pb.WatchJobRequest(job_id="a"))
            told = [[event.number for event in response.events] async for response in watch]
        await server.stop(None)
        assert told == [[1, 2, 3], [1]]

    await asyncio.wait_for(run(), SECONDS)
