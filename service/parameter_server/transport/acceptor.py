"""Where workers open their lines: a Unix socket for those that can share memory, a TCP port for all others."""

import asyncio
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.shard.reduction import Buffers
from service.parameter_server.transport.worker_connection import WorkerConnection
from workers.transport.peers import require_same_user
from workers.transport.server_connection import HANDSHAKE
from workers.transport.shared_memory import PROBE_BYTES, SharedMemory

__all__ = ["Acceptor"]

_TOKEN_BYTES: Final = 32
_OPEN_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.5
_BACKLOG: Final = 1024
# Connections that nobody has said a token on yet, at each listener; others wait until one of them is turned away.
_MOST_UNKNOWN: Final = 1024
# A worker attends as soon as its line is open; one that does not has died.
_ATTEND_SECONDS: Final = 30.0

_log = logging.getLogger(__name__)

_Greet = Callable[[socket.socket, str], Awaitable[WorkerConnection]]


class Acceptor:
    """Opens lines, and keeps each until its worker attends."""

    def __init__(
        self,
        transport: spec_pb.Transport.ValueType,
        host: str,
        weights: NDArray[np.floating],
        region: SharedMemory | None,
        buffers: Buffers,
    ) -> None:
        """Listens at once.

        Args:
            transport: The spec's.
            host: The address to listen on; the port is a free one.
            weights: The parameter vector.
            region: That it lies in; None if memory is not shared.
            buffers: What gradients are received into.
        """
        self._weights = weights
        self._region = region
        self._buffers = buffers
        self._expected: dict[bytes, str] = {}
        self._lines: dict[str, tuple[WorkerConnection, asyncio.TimerHandle]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unix, self._tcp = None, None
        if region is not None:
            self._unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            # A name in the abstract namespace leaves no file behind.
            self._socket_name = f"nablad-{secrets.token_hex(16)}".encode()
            self._unix.bind(b"\0" + self._socket_name)
            self._receive(self._unix, self._greet_shared)
        if transport != spec_pb.TRANSPORT_SHARED:
            self._tcp = socket.create_server((host, 0), backlog=_BACKLOG)
            self._receive(self._tcp, self._greet_inline)

    def expect(self, response: ps_pb.JoinResponse, *, same_host: bool) -> bool:
        """Tells a worker, in the response that names it, where to open its line; whether there is a way."""
        token = secrets.token_bytes(_TOKEN_BYTES)
        if self._unix and same_host:
            response.shared_line.socket_name = self._socket_name
        if self._tcp:
            response.inline_line.host, response.inline_line.port = self._tcp.getsockname()
        response.token = token
        self._expected[token] = response.worker_id
        return response.HasField("shared_line") or response.HasField("inline_line")

    def take(self, worker: str) -> WorkerConnection | None:
        """The line of a worker that attends now; None if it has not opened one."""
        self._expected = {token: name for token, name in self._expected.items() if name != worker}
        return self._give(worker)

    def _keep(self, worker: str, line: WorkerConnection) -> None:
        """A line is open; it takes the place of an earlier one."""
        self._drop(worker)
        drop = asyncio.get_running_loop().call_later(_ATTEND_SECONDS, self._drop, worker)
        self._lines[worker] = line, drop

    def _give(self, worker: str) -> WorkerConnection | None:
        line, drop = self._lines.pop(worker, (None, None))
        if drop:
            drop.cancel()
        return line

    def _drop(self, worker: str) -> None:
        """Closes the line of a worker that has not attended."""
        if line := self._give(worker):
            line.close()

    async def close(self) -> None:
        """Listens no more, and closes the lines of workers that did not attend."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for listener in filter(None, (self._unix, self._tcp)):
            listener.close()
        for worker in [*self._lines]:
            self._drop(worker)

    def _receive(self, listener: socket.socket, greet: _Greet) -> None:
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        self._start(self._accept(listener, greet))

    def _start(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self, listener: socket.socket, greet: _Greet) -> None:
        unknown = asyncio.Semaphore(_MOST_UNKNOWN)
        while True:
            await unknown.acquire()
            connection = await self._next_connection(listener)
            connection.setblocking(False)
            self._start(self._open(connection, greet)).add_done_callback(lambda _: unknown.release())

    async def _next_connection(self, listener: socket.socket) -> socket.socket:
        while True:
            try:
                connection, _ = await asyncio.get_running_loop().sock_accept(listener)
            except OSError as error:  # mostly that the process has no more files, for now
                _log.error("a line cannot be opened now: %s", error)
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return connection

    async def _open(self, connection: socket.socket, greet: _Greet) -> None:
        """Lets a worker in that has a token; whoever has none, or does not answer, is turned away."""
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                if connection.family == socket.AF_UNIX:
                    require_same_user(connection)
                worker = self._worker(await _read(connection, _TOKEN_BYTES))
                line = await greet(connection, worker)
                await asyncio.get_running_loop().sock_sendall(connection, HANDSHAKE)
            self._keep(worker, line)
        except (OSError, ValueError, TimeoutError) as error:
            _log.warning("a line was not opened: %s", error)
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise

    def _worker(self, token: bytes) -> str:
        if token not in self._expected:
            raise ValueError("this is no token of a worker that has joined")
        return self._expected[token]

    async def _greet_inline(self, connection: socket.socket, _: str) -> WorkerConnection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return WorkerConnection(connection, self._weights, self._buffers)

    async def _greet_shared(self, connection: socket.socket, worker: str) -> WorkerConnection:
        """Hands the regions over, and sees whether the worker really has them."""
        assert self._region is not None  # noqa: S101 (there is a Unix socket)
        gradient = SharedMemory.create(worker, max(self._weights.nbytes, PROBE_BYTES), others_may_write=True)
        answer = gradient.challenge()
        socket.send_fds(connection, [HANDSHAKE], [self._region.fileno(), gradient.fileno()])
        if await _read(connection, len(HANDSHAKE)) != HANDSHAKE or not gradient.says(answer):
            raise ValueError(f"{worker} does not see the same memory")
        return WorkerConnection(
            connection, self._weights, self._buffers, gradient.vector(self._weights.dtype, self._weights.size)
        )


async def _read(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await asyncio.get_running_loop().sock_recv(connection, count - len(data))
        if not more:
            raise ValueError("the other end closed it")
        data += more
    return data
