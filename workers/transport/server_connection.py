"""The worker's end of its connection to the parameter server: receives orders and sends results.

There are two kinds of connections with one protocol (frames.py). On one host the vectors lie in memory that both
processes have mapped, and a frame only says that they are ready. Between hosts the vectors follow the frames that
announce them, straight from and into the vectors of the computation. A gradient is then sent in parts, from the last
layer on, while earlier layers are computed.
"""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from workers.transport.frames import ORDER_BYTES, Order, Report, ReportKind, order_rest_bytes
from workers.transport.run_memory import RunEnd
from workers.transport.tickets import Result

__all__ = ["ServerConnection", "ServerConnectionError"]

# An order mostly comes before a sleeping process would be awake again: so it is polled this long before sleeping.
_SPIN_SECONDS = 200e-6
# Layers are sent together until they have so many bytes.
_PART_BYTES = 256 * 1024

_log = logging.getLogger(__name__)


class ServerConnectionError(Exception):
    """The connection could not be opened."""


class ServerConnection:
    """An open connection.

    Attributes:
        weights: The weights of the last order's version, shape (size,); not to be written to.
        gradient: Buffer that the gradient of a ticket is written to, shape (size,).
        shared: Whether both lie in shared memory.
        run_end: This worker's end of runs; None if it cannot make any.
    """

    def __init__(
        self,
        connection: socket.socket,
        versions: Sequence[NDArray[np.floating]],
        gradient: NDArray[np.floating],
        layer_starts: Iterable[int] | None = None,
        run_end: RunEnd | None = None,
    ) -> None:
        """Takes over a connection after its handshake.

        Args:
            connection: Blocking socket; owned from now on.
            versions: Buffers for the versions of the weights, each of shape (size,); version v is in buffer v modulo
                their number. One, where memory is not shared.
            gradient: Shape (size,).
            layer_starts: Index in the vector of the first number of each layer; None where memory is shared.
            run_end: Shared memory of runs; None if this worker cannot make any.
        """
        self.run_end = run_end
        self.weights = versions[0]
        self.gradient = gradient
        self.shared = layer_starts is None
        self._versions = versions
        self._connection = connection
        self._head = bytearray(ORDER_BYTES)
        self._layer_starts = [start * gradient.itemsize for start in layer_starts or ()]
        self._gradient_bytes = gradient.data.cast("B")
        self._unsent = 0  # of the gradient, in bytes
        self._sending: Future[None] | None = None
        self._sender = ThreadPoolExecutor(1, "sender")

    def next_order(self) -> Order | None:
        """Waits for an order and its weights; returns None when the parameter server closed the connection."""
        try:
            if not self._receive(memoryview(self._head), self._receive_soon):
                return None
            rest = bytearray(order_rest_bytes(self._head))
            order = Order.decode(self._head, rest) if self._receive(memoryview(rest)) else None
            if order:
                self.weights = self._versions[order.version % len(self._versions)]
            if order and order.weights_bytes and not self._receive(self.weights.data.cast("B")):
                return None
        except OSError as error:
            _log.info("the connection broke: %s", error)
            return None
        return order

    def start_gradient(self) -> None:
        """Prepares to send the gradient that is computed next."""
        self._unsent = 0 if self.shared else self._gradient_bytes.nbytes

    def layer_done(self, layer: int) -> None:
        """Sends what is complete of the gradient, from W(layer) and b(layer) on, once it is worth a frame."""
        if self.shared or layer == 0:
            return
        start = self._layer_starts[layer]
        if self._unsent - start >= _PART_BYTES:
            # On a thread: the earlier layers are computed meanwhile.
            part = Report.part(start, self._unsent - start).encode()
            self._sending = self._sender.submit(self._send, [part, self._gradient_bytes[start : self._unsent]])
            self._unsent = start

    def send_result(self, result: Result, attempt: int, statistics: Iterable[float]) -> None:
        """Sends a result, with what is left of its gradient. A broken connection shows at the next order.

        Args:
            result: Its gradient is this connection's.
            attempt: Number of the attempt that it belongs to.
            statistics: Of the worker, in the order of WORKER_STATISTICS.
        """
        unsent = 0 if result.gradient is None else self._unsent
        report = Report(ReportKind.RESULT, attempt, result, 0, unsent, list(statistics))
        with contextlib.suppress(OSError):
            if self._sending:
                self._sending.result()
                self._sending = None
            self._send([report.encode(), self._gradient_bytes[:unsent]])
        self._unsent = 0

    def is_open(self) -> bool:
        """Returns whether the parameter server still holds its end of the connection."""
        try:
            return bool(self._connection.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        """Ends the connection; a thread that waits for an order returns."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> "ServerConnection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._sender.shutdown()
        self._connection.close()

    def _send(self, pieces: "list[bytes | memoryview]") -> None:
        # One call for all pieces; what it leaves of large vectors is sent piece by piece.
        sent = self._connection.sendmsg(pieces)
        for piece in pieces:
            if sent < len(piece):
                self._connection.sendall(memoryview(piece)[sent:])
            sent = max(0, sent - len(piece))

    def _receive(self, view: memoryview, receive: Callable[[memoryview], int] | None = None) -> bool:
        """Fills the view; returns False if the connection was closed before."""
        receive = receive or self._connection.recv_into
        while view:
            count = receive(view)
            if not count:
                return False
            view = view[count:]
        return True

    def _receive_soon(self, view: memoryview) -> int:
        """Receives; polls for a moment before it sleeps."""
        deadline = time.perf_counter() + _SPIN_SECONDS
        while time.perf_counter() < deadline:
            try:
                return self._connection.recv_into(view, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                os.sched_yield()  # to the parameter server, if it has to run here
        return self._connection.recv_into(view)
