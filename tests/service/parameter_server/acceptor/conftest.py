"""A acceptor that listens, and ways to come to it."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.shard.reduction import GradientBuffers
from service.parameter_server.transport.acceptor import Acceptor
from service.parameter_server.transport.worker_connection import WorkerConnection
from workers.mathematics.parameters import ParameterLayout
from workers.transport.handshake import connect_to_server
from workers.transport.server_connection import ServerConnection
from workers.transport.shared_memory import SharedMemory

LAYOUT = ParameterLayout((6, 5, 3), bias=True)
DTYPE = np.dtype(np.float64)
_SECONDS = 30


class AcceptorBench:
    """A acceptor that listens, with what it was given.

    Attributes:
        weights: In the memory, if there is one.
        possible: Whether the last worker that joined was told a way.
    """

    def __init__(self, loop: Any, transport: spec_pb.Transport.ValueType, *, memory: bool) -> None:
        self.weights = np.zeros(LAYOUT.size)
        self._memory = (
            SharedMemory.create("weights", LAYOUT.size * DTYPE.itemsize, others_may_write=False) if memory else None
        )
        if self._memory:
            self.weights = self._memory.vector(DTYPE, LAYOUT.size)
        self._loop = loop
        self._closed = False
        self.acceptor: Acceptor = loop.run(self._open(transport))

    async def _open(self, transport: spec_pb.Transport.ValueType) -> Acceptor:
        return Acceptor(transport, "127.0.0.1", [self.weights], self._memory, GradientBuffers(LAYOUT.size, DTYPE))

    def join(self, name: str = "a", *, same_host: bool = True) -> ps_pb.JoinResponse:
        """What the worker is told."""
        response = ps_pb.JoinResponse(worker_id=name)
        self.possible: bool = self._loop.run(self._call(self.acceptor.offer_connection, response, same_host=same_host))
        return response

    def take(self, name: str = "a") -> WorkerConnection | None:
        """The connection of a worker that attends."""
        connection: WorkerConnection | None = self._loop.run(self._call(self.acceptor.claim_connection, name))
        return connection

    async def _call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return function(*arguments, **options)

    def open(self, joined: ps_pb.JoinResponse) -> ServerConnection:
        """Opens the connection as a worker does."""
        return connect_to_server(joined, LAYOUT, DTYPE)

    def connect(self, joined: ps_pb.JoinResponse, *, shared: bool) -> socket.socket:
        """Only connects."""
        if not shared:
            return socket.create_connection((joined.inline_connection.host, joined.inline_connection.port), _SECONDS)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_SECONDS)
        connection.connect(b"\0" + joined.shared_connection.socket_name)
        return connection

    def settle(self) -> None:
        """Returns when the loop has come round, and dealt with what had come."""
        for _ in range(10):
            self._loop.run(asyncio.sleep(0))

    def close(self) -> None:
        """Listens no more."""
        if not self._closed:
            self._closed = True
            self._loop.run(self.acceptor.close())


@pytest.fixture
def make_acceptor_bench(loop: Any) -> Iterator[Callable[..., AcceptorBench]]:
    """Opens receptions for a transport, with a memory for the weights or without."""
    opened: list[AcceptorBench] = []

    def make(transport: spec_pb.Transport.ValueType = spec_pb.TRANSPORT_AUTO, *, memory: bool = True) -> AcceptorBench:
        opened.append(AcceptorBench(loop, transport, memory=memory))
        return opened[-1]

    yield make
    for bench in opened:
        bench.close()


@pytest.fixture
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The acceptor waits for nobody for long."""
    monkeypatch.setattr("service.parameter_server.transport.acceptor._OPEN_SECONDS", 0.05)


@pytest.fixture
def hangs_up() -> Callable[[socket.socket], bool]:
    """Waits for what the other end does; whether it closes the connection."""

    def wait(connection: socket.socket) -> bool:
        try:
            return not connection.recv(1)
        except ConnectionResetError:
            return True

    return wait
