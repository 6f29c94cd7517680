"""A reception that listens, and ways to come to it."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.shard.reduction import Buffers
from service.parameter_server.transport.acceptor import Acceptor
from service.parameter_server.transport.worker_connection import WorkerConnection
from workers.mathematics.parameters import ParameterLayout
from workers.transport.server_connection import ServerConnection as WorkerLine
from workers.transport.server_connection import connect_to_server
from workers.transport.shared_memory import SharedMemory

LAYOUT = ParameterLayout((6, 5, 3), bias=True)
DTYPE = np.dtype(np.float64)
_SECONDS = 30


class Desk:
    """A reception that listens, with what it was given.

    Attributes:
        weights: In the region, if there is one.
        possible: Whether the last worker that joined was told a way.
    """

    def __init__(self, loop: Any, transport: spec_pb.Transport.ValueType, *, region: bool) -> None:
        self.weights = np.zeros(LAYOUT.size)
        self._region = (
            SharedMemory.create("weights", LAYOUT.size * DTYPE.itemsize, others_may_write=False) if region else None
        )
        if self._region:
            self.weights = self._region.vector(DTYPE, LAYOUT.size)
        self._loop = loop
        self._closed = False
        self.reception: Acceptor = loop.run(self._open(transport))

    async def _open(self, transport: spec_pb.Transport.ValueType) -> Acceptor:
        return Acceptor(transport, "127.0.0.1", self.weights, self._region, Buffers(LAYOUT.size, DTYPE))

    def join(self, name: str = "a", *, same_host: bool = True) -> ps_pb.JoinResponse:
        """What the worker is told."""
        response = ps_pb.JoinResponse(worker_id=name)
        self.possible: bool = self._loop.run(self._call(self.reception.expect, response, same_host=same_host))
        return response

    def take(self, name: str = "a") -> WorkerConnection | None:
        """The line of a worker that attends."""
        line: WorkerConnection | None = self._loop.run(self._call(self.reception.take, name))
        return line

    async def _call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return function(*arguments, **options)

    def open(self, joined: ps_pb.JoinResponse) -> WorkerLine:
        """Opens the line as a worker does."""
        return connect_to_server(joined, LAYOUT, DTYPE)

    def connect(self, joined: ps_pb.JoinResponse, *, shared: bool) -> socket.socket:
        """Only connects."""
        if not shared:
            return socket.create_connection((joined.inline_line.host, joined.inline_line.port), _SECONDS)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_SECONDS)
        connection.connect(b"\0" + joined.shared_line.socket_name)
        return connection

    def settle(self) -> None:
        """Returns when the loop has come round, and dealt with what had come."""
        for _ in range(10):
            self._loop.run(asyncio.sleep(0))

    def close(self) -> None:
        """Listens no more."""
        if not self._closed:
            self._closed = True
            self._loop.run(self.reception.close())


@pytest.fixture
def make_desk(loop: Any) -> Iterator[Callable[..., Desk]]:
    """Opens receptions for a transport, with a region for the weights or without."""
    opened: list[Desk] = []

    def make(transport: spec_pb.Transport.ValueType = spec_pb.TRANSPORT_AUTO, *, region: bool = True) -> Desk:
        opened.append(Desk(loop, transport, region=region))
        return opened[-1]

    yield make
    for desk in opened:
        desk.close()


@pytest.fixture
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reception waits for nobody for long."""
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
