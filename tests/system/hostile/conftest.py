"""What hostile and clumsy clients call with: a bare channel, and a service that must stay up."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from nablad import Client
from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import models_pb2 as models_pb

_SECONDS = 30
_METHODS = [
    (f"/{service.full_name}/{method.name}", method.client_streaming, method.server_streaming)
    for file in (jobs_pb, datasets_pb, models_pb)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
] + [
    ("/grpc.health.v1.Health/Check", False, False),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", True, True),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", True, True),
]  # fmt: skip


@pytest.fixture
def channel(daemon: Any) -> Iterator[grpc.Channel]:
    """A channel without any of the client's manners."""
    with grpc.insecure_channel(daemon.address) as channel:
        yield channel


@pytest.fixture(autouse=True)
def stays_up(daemon: Any, client: Client, until: Callable[[Callable[[], bool]], None]) -> Iterator[None]:
    """After every attack the service answers, nothing is staged, and its log has no traceback."""
    before = daemon.log_file.read_text().count("Traceback")
    yield
    list(client.jobs())
    until(lambda: not list((daemon.data_directory / "staging").iterdir()))
    assert daemon.log_file.read_text().count("Traceback") == before


@pytest.fixture
def until(client: Client) -> Callable[[Callable[[], bool]], None]:
    """Waits for something that must come true within a few calls' time."""

    def wait(condition: Callable[[], bool]) -> None:
        for _ in range(2000):
            if condition():
                return
            list(client.datasets())
        pytest.fail("it did not come true")

    return wait


@pytest.fixture
def end() -> Callable[[Any], grpc.StatusCode]:
    """How a call that streams its answers ends."""
    return _end


def _end(stream: Any) -> grpc.StatusCode:
    with suppress(grpc.RpcError):
        list(stream)
    code: grpc.StatusCode = stream.code()
    return code


@pytest.fixture(params=[path for path, *_ in _METHODS])
def method(request: pytest.FixtureRequest) -> str:
    """Each method of the service."""
    path: str = request.param
    return path


@pytest.fixture
def call(channel: grpc.Channel) -> Callable[[str, Message | bytes], grpc.StatusCode]:
    """Calls a method, named by the end of its path, with a message or bytes that need not be one; how it ends."""

    def make(method: str, request: Message | bytes) -> grpc.StatusCode:
        path, many_requests, many_responses = next(each for each in _METHODS if each[0].endswith(method))
        kind = f"{'stream' if many_requests else 'unary'}_{'stream' if many_responses else 'unary'}"
        call = getattr(channel, kind)(path, None, None)
        data = request if isinstance(request, bytes) else request.SerializeToString()
        if many_requests:
            data = iter([data])
        if many_responses:
            return _end(call(data, timeout=_SECONDS))
        code: grpc.StatusCode = call.future(data, timeout=_SECONDS).code()
        return code

    return make
