"""The worker's end of its line to the parameter server, over which orders come and results go.

Two kinds, one protocol (frames.py). On one host the vectors lie in regions that both processes have mapped, and a frame
is only the bell that says so. Between hosts the vectors follow the frames that announce them, straight from and into
the vectors that are computed with; a gradient goes in parts, from the last layer on, while earlier layers are computed.
"""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nablad.v1 import parameter_server_pb2 as ps_pb
from workers.mathematics.parameters import ParameterLayout
from workers.transport.frames import ORDER_BYTES, Order, Report, ReportKind, order_rest_bytes
from workers.transport.peers import require_same_user
from workers.transport.shared_memory import PROBE_BYTES, SharedMemory
from workers.transport.tickets import Result

__all__ = ["HANDSHAKE", "ServerConnection", "ServerConnectionError", "connect_to_server"]

HANDSHAKE = b"+"
"""What either end says when it has done its part in opening the line."""

_OPEN_SECONDS = 10.0
# An order mostly comes before a sleeping process would be awake again: so long it is looked for without sleeping.
_SPIN_SECONDS = 200e-6
# Layers are sent together until they have so many bytes.
_PART_BYTES = 256 * 1024

_log = logging.getLogger(__name__)


class ServerConnectionError(Exception):
    """The line could not be opened."""


class ServerConnection:
    """An open line.

    Attributes:
        weights: The weights of the last order's version, shape (size,); not to be written to.
        gradient: Where the gradient of a ticket is to be written, shape (size,).
        shared: Whether both lie in shared memory.
    """

    def __init__(
        self,
        connection: socket.socket,
        weights: NDArray[np.floating],
        gradient: NDArray[np.floating],
        layer_starts: Iterable[int] | None = None,
    ) -> None:
        """A line that is open already.

        Args:
            connection: Blocking; taken over.
            weights: Shape (size,).
            gradient: Shape (size,).
            layer_starts: Where in the vector the numbers of each layer begin; None where memory is shared.
        """
        self.weights = weights
        self.gradient = gradient
        self.shared = layer_starts is None
        self._connection = connection
        self._head = bytearray(ORDER_BYTES)
        self._layer_starts = [start * gradient.itemsize for start in layer_starts or ()]
        self._gradient_bytes = gradient.data.cast("B")
        self._unsent = 0  # of the gradient, in bytes
        self._sending: Future[None] | None = None
        self._sender = ThreadPoolExecutor(1, "sender")

    def next_order(self) -> Order | None:
        """Waits for an order, and for its weights; None when the parameter server closed the line."""
        try:
            if not self._receive(memoryview(self._head), self._receive_soon):
                return None
            rest = bytearray(order_rest_bytes(self._head))
            order = Order.decode(self._head, rest) if self._receive(memoryview(rest)) else None
            if order and order.weights_bytes and not self._receive(self.weights.data.cast("B")):
                return None
        except OSError as error:
            _log.info("the line broke: %s", error)
            return None
        return order

    def begin(self) -> None:
        """A gradient is about to be computed."""
        self._unsent = 0 if self.shared else self._gradient_bytes.nbytes

    def layer_done(self, layer: int) -> None:
        """The gradient of W(layer) and b(layer) is written, and those of all later layers before."""
        if self.shared or layer == 0:
            return
        start = self._layer_starts[layer]
        if self._unsent - start >= _PART_BYTES:
            # On a thread: the earlier layers are computed meanwhile.
            part = Report.part(start, self._unsent - start).encode()
            self._sending = self._sender.submit(self._send, [part, self._gradient_bytes[start : self._unsent]])
            self._unsent = start

    def send(self, result: Result, attempt: int, figures: Iterable[float]) -> None:
        """Sends a result, with what is left of its gradient. That the line broke shows at the next order.

        Args:
            result: Its gradient is this line's.
            attempt: That it belongs to.
            figures: Of the worker, by FIGURES.
        """
        unsent = 0 if result.gradient is None else self._unsent
        report = Report(ReportKind.RESULT, attempt, result, 0, unsent, list(figures))
        with contextlib.suppress(OSError):
            if self._sending:
                self._sending.result()
                self._sending = None
            self._send([report.encode(), self._gradient_bytes[:unsent]])
        self._unsent = 0

    def close(self) -> None:
        """Ends the line, also for a thread that waits for an order."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> "ServerConnection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._sender.shutdown()
        self._connection.close()

    def _send(self, pieces: "list[bytes | memoryview]") -> None:
        # One call for all; what it leaves over, if the vectors are large, goes piece by piece.
        sent = self._connection.sendmsg(pieces)
        for piece in pieces:
            if sent < len(piece):
                self._connection.sendall(memoryview(piece)[sent:])
            sent = max(0, sent - len(piece))

    def _receive(self, view: memoryview, receive: Callable[[memoryview], int] | None = None) -> bool:
        """Fills the view; whether the line was open long enough."""
        receive = receive or self._connection.recv_into
        while view:
            count = receive(view)
            if not count:
                return False
            view = view[count:]
        return True

    def _receive_soon(self, view: memoryview) -> int:
        """Receives without sleeping for a moment, and only then asleep."""
        deadline = time.perf_counter() + _SPIN_SECONDS
        while time.perf_counter() < deadline:
            try:
                return self._connection.recv_into(view, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                os.sched_yield()  # to the parameter server, if it has to run here
        return self._connection.recv_into(view)


def connect_to_server(joined: ps_pb.JoinResponse, layout: ParameterLayout, dtype: np.dtype[Any]) -> ServerConnection:
    """Opens the line that Join offered: one that shares memory if that is offered and possible.

    Raises:
        ServerConnectionError: Neither could be opened.
    """
    if joined.HasField("shared_line"):
        try:
            return _open_shared(joined, layout.size, dtype)
        except (OSError, ValueError) as error:
            if not joined.HasField("inline_line"):
                raise ServerConnectionError(f"memory cannot be shared with the parameter server: {error}") from error
            _log.info("memory cannot be shared with the parameter server, it goes inline: %s", error)
    try:
        return _open_inline(joined, layout, dtype)
    except (OSError, ValueError) as error:
        raise ServerConnectionError(
            f"the parameter server's port for weights and gradients cannot be reached: {error}"
        ) from error


def _open_shared(joined: ps_pb.JoinResponse, size: int, dtype: np.dtype[Any]) -> ServerConnection:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_OPEN_SECONDS)
        connection.connect(b"\0" + joined.shared_line.socket_name)
        # A name in the abstract namespace is anybody's once its first owner is gone.
        require_same_user(connection)
        connection.sendall(joined.token)
        weights, gradient = _receive_regions(connection, max(size * dtype.itemsize, PROBE_BYTES))
        gradient.answer()
        connection.sendall(HANDSHAKE)
        _require_handshake(connection)
    except BaseException:
        connection.close()
        raise
    return ServerConnection(connection, weights.vector(dtype, size), gradient.vector(dtype, size))


def _receive_regions(connection: socket.socket, size: int) -> tuple[SharedMemory, SharedMemory]:
    """Weights to read, and gradient to write."""
    _, files, _, _ = socket.recv_fds(connection, len(HANDSHAKE), 2, socket.MSG_CMSG_CLOEXEC)
    try:
        if len(files) != 2:
            raise ValueError("the parameter server did not accept this worker")
        weights = SharedMemory(files.pop(0), size, writable=False)
        return weights, SharedMemory(files.pop(0), size, writable=True)
    finally:
        for file in files:  # that no region has taken over
            os.close(file)


def _open_inline(joined: ps_pb.JoinResponse, layout: ParameterLayout, dtype: np.dtype[Any]) -> ServerConnection:
    connection = socket.create_connection((joined.inline_line.host, joined.inline_line.port), _OPEN_SECONDS)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(joined.token)
        _require_handshake(connection)
    except BaseException:
        connection.close()
        raise
    return ServerConnection(connection, np.zeros(layout.size, dtype), np.empty(layout.size, dtype), layout.starts)


def _require_handshake(connection: socket.socket) -> None:
    if connection.recv(len(HANDSHAKE)) != HANDSHAKE:
        raise ValueError("the parameter server did not accept this worker")
    connection.settimeout(None)
