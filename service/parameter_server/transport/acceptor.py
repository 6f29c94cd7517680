"""Acceptor: opens the workers' connections, over a Unix socket with shared memory or over a TCP port without."""

import asyncio
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.shard.reduction import GradientBuffers
from service.parameter_server.transport.worker_connection import WorkerConnection
from workers.transport.handshake import HANDSHAKE, require_same_user
from workers.transport.run_memory import RunMemory, WorkerMemory, worker_memory_bytes
from workers.transport.shared_memory import SharedMemory

__all__ = ["Acceptor"]

_TOKEN_BYTES: Final = 32
_OPEN_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.5
_BACKLOG: Final = 1024
# Most sockets without a valid token, at each listener; others wait until one of them is closed.
_MOST_UNKNOWN: Final = 1024
# A worker attends as soon as its connection is open; one that does not has died.
_ATTEND_SECONDS: Final = 30.0

_log = logging.getLogger(__name__)

_Handshake = Callable[[socket.socket, str], Awaitable[WorkerConnection]]


class Acceptor:
    """Opens connections, and keeps each until its worker attends."""

    def __init__(
        self,
        transport: spec_pb.Transport.ValueType,
        host: str,
        versions: Sequence[NDArray[np.floating]],
        memory: SharedMemory | None,
        buffers: GradientBuffers,
        run_memory: RunMemory | None = None,
        slots: int = 1,
    ) -> None:
        """Listens at once.

        Args:
            transport: Transport of the spec.
            host: Address to listen on; the port is a free one.
            versions: Buffers for the versions of the parameter vector.
            memory: Shared memory of these buffers; None if they are not shared.
            buffers: Pool of the vectors that gradients are received into.
            run_memory: Memory of runs; None if there will be none.
            slots: Most results of one step that a worker has in shared memory.
        """
        self._versions = versions
        self._memory = memory
        self._buffers = buffers
        self._run_memory = run_memory
        self._slots = slots
        self._expected: dict[bytes, str] = {}  # worker by token
        self._runners: set[str] = set()  # workers that can make runs
        self._connections: dict[str, tuple[WorkerConnection, asyncio.TimerHandle]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unix, self._tcp = None, None
        if memory is not None:
            self._unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            # A name in the abstract namespace leaves no file behind.
            self._socket_name = f"nablad-{secrets.token_hex(16)}".encode()
            self._unix.bind(b"\0" + self._socket_name)
            self._listen(self._unix, self._shared_handshake)
        if transport != spec_pb.TRANSPORT_SHARED:
            self._tcp = socket.create_server((host, 0), backlog=_BACKLOG)
            self._listen(self._tcp, self._inline_handshake)

    def offer_connection(self, response: ps_pb.JoinResponse, *, same_host: bool, can_run: bool = False) -> bool:
        """Writes a token and the ways to open a connection to the response for a worker.

        Args:
            response: Names the worker.
            same_host: Whether the worker may share memory.
            can_run: Whether it has the same native library.

        Returns:
            Whether there is a way.
        """
        token = secrets.token_bytes(_TOKEN_BYTES)
        if self._unix and same_host:
            response.shared_connection.socket_name = self._socket_name
            response.shared_connection.slots = self._slots
            response.shared_connection.weight_buffers = len(self._versions)
            if can_run and self._run_memory:
                self._runners.add(response.worker_id)
        if self._tcp:
            response.inline_connection.host, response.inline_connection.port = self._tcp.getsockname()
        response.token = token
        self._expected[token] = response.worker_id
        return response.HasField("shared_connection") or response.HasField("inline_connection")

    def claim_connection(self, worker: str) -> WorkerConnection | None:
        """Returns the connection of a worker that attends now; None if it has not opened one."""
        self._expected = {token: name for token, name in self._expected.items() if name != worker}
        self._runners.discard(worker)
        return self._pop(worker)

    def _keep(self, worker: str, connection: WorkerConnection) -> None:
        """Keeps an open connection, in place of an earlier one, until its worker attends."""
        self._drop(worker)
        drop = asyncio.get_running_loop().call_later(_ATTEND_SECONDS, self._drop, worker)
        self._connections[worker] = connection, drop

    def _pop(self, worker: str) -> WorkerConnection | None:
        connection, drop = self._connections.pop(worker, (None, None))
        if drop:
            drop.cancel()
        return connection

    def _drop(self, worker: str) -> None:
        """Closes the connection of a worker that has not attended."""
        if connection := self._pop(worker):
            connection.close()

    async def close(self) -> None:
        """Stops listening, and closes the connections of workers that did not attend."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for listener in filter(None, (self._unix, self._tcp)):
            listener.close()
        for worker in [*self._connections]:
            self._drop(worker)

    def _listen(self, listener: socket.socket, handshake: _Handshake) -> None:
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        self._start(self._accept(listener, handshake))

    def _start(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self, listener: socket.socket, handshake: _Handshake) -> None:
        unknown = asyncio.Semaphore(_MOST_UNKNOWN)
        while True:
            await unknown.acquire()
            connection = await self._next_socket(listener)
            connection.setblocking(False)
            self._start(self._open(connection, handshake)).add_done_callback(lambda _: unknown.release())

    async def _next_socket(self, listener: socket.socket) -> socket.socket:
        while True:
            try:
                connection, _ = await asyncio.get_running_loop().sock_accept(listener)
            except OSError as error:  # mostly because the process can open no more files for now
                _log.error("a worker's connection cannot be accepted now: %s", error)
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return connection

    async def _open(self, connection: socket.socket, handshake: _Handshake) -> None:
        """Opens the connection of a worker that has a token; closes the socket of any other process."""
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                if connection.family == socket.AF_UNIX:
                    require_same_user(connection)
                worker = self._worker(await _read(connection, _TOKEN_BYTES))
                opened = await handshake(connection, worker)
                await asyncio.get_running_loop().sock_sendall(connection, HANDSHAKE)
            self._keep(worker, opened)
        except (OSError, ValueError, TimeoutError) as error:
            _log.warning("a connection was rejected: %s", error)
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise

    def _worker(self, token: bytes) -> str:
        if token not in self._expected:
            raise ValueError("this is no token of a worker that has joined")
        return self._expected[token]

    async def _inline_handshake(self, connection: socket.socket, _: str) -> WorkerConnection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return WorkerConnection(connection, self._versions, self._buffers)

    async def _shared_handshake(self, connection: socket.socket, worker: str) -> WorkerConnection:
        """Passes the shared memory to the worker, and probes that both ends see the same memory."""
        assert self._memory is not None  # noqa: S101 (there is a Unix socket)
        dtype, size = self._versions[0].dtype, self._versions[0].size
        can_run = worker in self._runners
        size_bytes = worker_memory_bytes(dtype, size, self._slots)
        gradient = SharedMemory.create(worker, size_bytes, others_may_write=True)
        answer = gradient.write_challenge()
        shared = [self._memory, gradient, *(self._run_memory if can_run and self._run_memory else ())]
        socket.send_fds(connection, [HANDSHAKE], [memory.fileno() for memory in shared])
        if await _read(connection, len(HANDSHAKE)) != HANDSHAKE or not gradient.has_answer(answer):
            raise ValueError(f"{worker} does not see the same memory")
        memory = WorkerMemory(gradient, dtype, size, self._slots)
        run_memory = memory if can_run else None
        return WorkerConnection(connection, self._versions, self._buffers, memory.gradients[0], run_memory)


async def _read(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await asyncio.get_running_loop().sock_recv(connection, count - len(data))
        if not more:
            raise ValueError("the other end closed it")
        data += more
    return data
