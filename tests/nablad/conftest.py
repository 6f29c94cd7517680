"""A service whose answers the tests write, over real gRPC."""

import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from select import select
from threading import Thread
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from nablad import Client, Violation
from nablad.v1 import datasets_pb2_grpc, jobs_pb2_grpc, models_pb2_grpc
from service.api.server import SERVER_OPTIONS

Handler = Callable[[Any, Any], Any]


class ScriptedService:
    """All three services of the contract; each call goes to a handler that a test has set by the call's name.

    Attributes:
        handlers: By the name of the call: a function of request (or requests) and context.
        calls: Name and request of every call so far.
        address: Where it listens.
    """

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.calls: list[tuple[str, Any]] = []
        self.address = ""

    def answer(self, name: str, request: Any, context: Any) -> Any:
        self.calls.append((name, request))
        return self.handlers[name](request, context)

    def requests(self, name: str) -> list[Any]:
        return [request for called, request in self.calls if called == name]


def _scripted(base: type, service: ScriptedService) -> Any:
    def method(name: str) -> Callable[[Any, Any, Any], Any]:
        return lambda _self, request, context: service.answer(name, request, context)

    return type("Scripted", (base,), {name: method(name) for name in vars(base) if name[0].isupper()})()


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    script = ScriptedService()
    # Those of the service; but tests ping faster than clients do.
    options = [(name, 100 if "ping_interval" in name else value) for name, value in SERVER_OPTIONS]
    server = grpc.server(ThreadPoolExecutor(8), options=options)
    jobs_pb2_grpc.add_JobServiceServicer_to_server(_scripted(jobs_pb2_grpc.JobServiceServicer, script), server)
    datasets_pb2_grpc.add_DatasetServiceServicer_to_server(
        _scripted(datasets_pb2_grpc.DatasetServiceServicer, script), server
    )
    models_pb2_grpc.add_ModelServiceServicer_to_server(_scripted(models_pb2_grpc.ModelServiceServicer, script), server)
    script.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield script
    server.stop(None).wait()


@pytest.fixture
def client(service: ScriptedService) -> Iterator[Client]:
    with Client(service.address) as connected:
        yield connected


class SilenceableProxy:
    """The way to a service, which can fall silent: connections stay open, and nothing comes over them any more.

    Attributes:
        address: Where it listens.
        heard: Called with each piece of what clients send.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self.heard: Callable[[bytes], None] = lambda _: None
        self._silent = False
        self._stopped, self._stop = socket.socketpair()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self._port}"
        self._thread = Thread(target=self._run, name="proxy")
        self._thread.start()

    def silence(self) -> None:
        """From now on, whatever comes is swallowed."""
        self._silent = True

    def close(self) -> None:
        """Ends all connections."""
        self._stop.close()
        self._thread.join()

    def _run(self) -> None:
        others: dict[socket.socket, socket.socket] = {}
        while True:
            ready, _, _ = select([self._stopped, self._listener, *others], [], [])
            if self._stopped in ready:
                break
            for end in ready:
                if end is self._listener:
                    accepted, target = end.accept()[0], socket.create_connection(self._target)
                    others |= {accepted: target, target: accepted}
                elif end in others:
                    self._forward(end, others)
        for end in (self._stopped, self._listener, *others):
            end.close()

    def _forward(self, end: socket.socket, others: dict[socket.socket, socket.socket]) -> None:
        try:
            data = end.recv(1 << 16)
            if data and not self._silent:
                if end.getsockname()[1] == self._port:
                    self.heard(data)
                others[end].sendall(data)
        except ConnectionError:
            data = b""
        if not data:
            other = others.pop(end)
            others.pop(other)
            end.close()
            other.close()


@pytest.fixture
def silent_service(service: ScriptedService) -> Iterator[SilenceableProxy]:
    """A way to the scripted service that can fall silent."""
    proxy = SilenceableProxy(service.address)
    yield proxy
    proxy.close()


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address where nothing listens, held so that nothing can begin to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def refuse() -> Callable[..., Handler]:
    """Makes handlers that refuse as the service does: a status with ErrorInfo and BadRequest."""

    def handler_for(code: grpc.StatusCode, sentence: str, violations: Sequence[Violation] = ()) -> Handler:
        bad_request = error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field=each.field, description=each.message)
                for each in violations
            ]
        )
        details = [AnyMessage(), AnyMessage()]
        details[0].Pack(error_details_pb2.ErrorInfo(reason="TESTED", domain="nablad"))
        details[1].Pack(bad_request)
        status = status_pb2.Status(code=code.value[0], message=sentence, details=details)
        return lambda _request, context: context.abort_with_status(rpc_status.to_status(status))

    return handler_for
