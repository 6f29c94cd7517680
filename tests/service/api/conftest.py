"""The API's server as the daemon has it, without what is behind it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2
from prometheus_client import CollectorRegistry

from nablad.v1 import datasets_pb2_grpc, jobs_pb2_grpc, models_pb2_grpc
from service.api.server import make_server
from service.metrics.instruments import Instruments

_SECONDS = 60

Use = Callable[[str], Awaitable[None]]


@pytest.fixture
def serve() -> Callable[..., None]:
    """Runs a server, with options of gRPC or servicers in place of its own, while a coroutine uses its address."""
    return _serve


def _serve(use: Use, *, options: tuple[tuple[str, int], ...] = (), jobs: Any = None) -> None:
    async def run() -> None:
        checks = health.aio.HealthServicer()
        server = make_server(
            jobs or jobs_pb2_grpc.JobServiceServicer(),
            datasets_pb2_grpc.DatasetServiceServicer(),
            models_pb2_grpc.ModelServiceServicer(),
            checks,
            Instruments(CollectorRegistry()),
            options=options,
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        await checks.set("", health_pb2.HealthCheckResponse.SERVING)
        try:
            await use(f"127.0.0.1:{port}")
        finally:
            await server.stop(None)

    asyncio.run(asyncio.wait_for(run(), _SECONDS))


@pytest.fixture
def is_alive() -> Callable[[str], Awaitable[bool]]:
    """Asks a server for its health over a connection of its own."""
    return _is_alive


async def _is_alive(address: str) -> bool:
    # Channels of one process share their connections if nothing is said.
    async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        answer = health_pb2.HealthCheckResponse.FromString(await check(b"", timeout=_SECONDS / 2))
    return answer.status == health_pb2.HealthCheckResponse.SERVING
