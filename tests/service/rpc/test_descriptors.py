"""Limits of descriptors, and servers whose clients cannot take all of them; each test has a process of its own."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import given
from hypothesis import strategies as st

from service.rpc.descriptors import most_connections

_SECONDS = 60
# A client of gRPC that nobody answers gives up connecting after 20 s, and would then say UNAVAILABLE too.
_DEADLINE_SECONDS = 15

_RAISED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from service.rpc import descriptors
descriptors._WANTED = {wanted}
print(descriptors.raise_descriptor_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""

_SERVER = """
import asyncio, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
from grpc_health.v1 import health, health_pb2
from prometheus_client import CollectorRegistry
from nablad.v1 import datasets_pb2_grpc, jobs_pb2_grpc, models_pb2_grpc
from service.api.server import make_server
from service.metrics.instruments import Instruments

async def main():
    checks = health.aio.HealthServicer()
    server = make_server(
        jobs_pb2_grpc.JobServiceServicer(), datasets_pb2_grpc.DatasetServiceServicer(),
        models_pb2_grpc.ModelServiceServicer(), checks, Instruments(CollectorRegistry()),
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await checks.set("", health_pb2.HealthCheckResponse.SERVING)
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    open("/dev/null").close()  # there is a descriptor left for the service itself
    print("whole", flush=True)
    await server.stop(None)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "limit"),
    [(64, 400, 1000, 400), (300, 300, 1000, 300), (100, 900, 500, 500), (600, 900, 500, 600)],
)
def test_the_limit_is_raised_as_far_as_is_allowed(soft: int, hard: int, wanted: int, limit: int) -> None:
    """It is never lowered, and the hard limit stays, because it could not be raised again."""
    code = _RAISED.format(soft=soft, hard=hard, wanted=wanted)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=_SECONDS, check=True)
    assert ran.stdout.split() == [str(limit), str(limit), str(hard)]


@given(st.integers(700, 10_000_000))
def test_connections_leave_descriptors_for_the_service(limit: int) -> None:
    """They do so even at two addresses, which localhost may be; scrapers have theirs."""
    assert 2 * most_connections(limit) <= limit - 256


@pytest.fixture
def port() -> Iterator[int]:
    """A server that may have 1024 descriptors; it must have some left at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
            said, _ = server.communicate("", timeout=_SECONDS)
            assert said == "whole\n"
        finally:
            server.kill()


def _check(port: int) -> grpc.StatusCode:
    """Returns the code of a call of a new client."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        call = health_pb2_grpc.HealthStub(channel).Check.future(
            health_pb2.HealthCheckRequest(), timeout=_DEADLINE_SECONDS
        )
        code: grpc.StatusCode = call.code()
    return code


def test_more_connections_than_descriptors_make_no_client_wait(port: int) -> None:
    """A new client gets an error at once, and is served when others have gone."""
    with ExitStack() as stack:
        for _ in range(1100):
            stack.enter_context(closing(socket.create_connection(("127.0.0.1", port), timeout=_SECONDS)))
        assert _check(port) == grpc.StatusCode.UNAVAILABLE
    for _ in range(1000):
        if (code := _check(port)) == grpc.StatusCode.OK:
            return
        assert code == grpc.StatusCode.UNAVAILABLE
    pytest.fail("no client is served any more")
