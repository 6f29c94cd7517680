"""One process of those that are measured: ``python -m benchmarks.scale.process ROLE ARGUMENT``."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

import grpc

from benchmarks.scale.echo import read_and_write, receive_and_send
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from service.parameter_server.process import start_parameter_server
from workers.worker import SECRET_KEY, work

_SECRET = "scale"  # noqa: S105 (nobody else knows the port, and nothing here is worth a secret)
_MESSAGE_BYTES = 1 << 20


def serve(assignment_file: str) -> None:
    """Is a parameter server: says its address, and its running totals after each epoch."""
    asyncio.run(_serve(ps_pb.Assignment.FromString(Path(assignment_file).read_bytes())))


async def _serve(assignment: ps_pb.Assignment) -> None:
    running = await start_parameter_server(assignment, _SECRET, "127.0.0.1")
    print(running.address, flush=True)
    async with grpc.aio.insecure_channel(running.address) as channel:
        stub = ps_grpc.ParameterServerServiceStub(channel)
        seen, over = 0, False
        while not over:
            request = ps_pb.FollowRequest(seen=seen, telemetry=True)
            told = await stub.Follow(request, metadata=((SECRET_KEY, _SECRET),))
            seen += len(told.happenings)
            whats = {happening.WhichOneof("what") for happening in told.happenings}
            over = not whats.isdisjoint({"finished", "failed", "diverged"})
            if any(happening.HasField("epoch_end") for happening in told.happenings):
                _tell(told)
    await running.stop()


def _tell(told: ps_pb.FollowResponse) -> None:
    telemetry = told.telemetry
    totals = {
        "workers": told.progress.workers_alive,
        "steps": told.progress.step,
        "step_s": {"sum": telemetry.step_seconds_sum},
        "worker_s": dict(telemetry.worker_seconds),
        "server_s": dict(telemetry.server_seconds),
    }
    print(json.dumps(totals), flush=True)


def join(address: str) -> None:
    """Is a worker, from the moment that a line comes in: so that several begin together."""
    print("ready", flush=True)
    sys.stdin.readline()
    work(address, _SECRET, threads=1, message_bytes=_MESSAGE_BYTES)


_ROLES: dict[str, Callable[..., None]] = {
    "server": serve,
    "worker": join,
    "regions": read_and_write,
    "line": receive_and_send,
}

if __name__ == "__main__":
    _ROLES[sys.argv[1]](*sys.argv[2:])
