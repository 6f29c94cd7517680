"""Lines, and the sockets of the workers at their other ends."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from service.parameter_server.shard.reduction import GradientBuffers
from service.parameter_server.transport.worker_connection import WorkerConnection
from workers.transport.frames import ORDER_BYTES, Order, order_rest_bytes


class Ends:
    """A connection, and the socket of the worker at its other end.

    Attributes:
        connection: The parameter server's end.
        worker: Not blocking.
        weights: Shape (size,), float64.
        other: The buffer of the other versions, if there are two.
        memory: Where the worker writes its gradient; None if it sends it.
        buffers: What gradients are received into.
    """

    def __init__(self, size: int, *, shared: bool = False, socket_bytes: int | None = None, buffers: int = 1) -> None:
        here, self.worker = socket.socketpair()
        for end in (here, self.worker) if socket_bytes else ():
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, socket_bytes)
        self.worker.setblocking(False)
        self.weights = np.arange(size, dtype=np.float64)
        self.other = -self.weights
        self.memory = np.zeros(size) if shared else None
        self.buffers = GradientBuffers(size, np.float64)
        self.connection = WorkerConnection(here, [self.weights, self.other][:buffers], self.buffers, self.memory)

    def read(self) -> bytes:
        """What has come to the worker."""
        data = bytearray()
        try:
            while more := self.worker.recv(1 << 20):
                data += more
        except BlockingIOError:
            pass
        return bytes(data)

    def orders(self) -> list[tuple[Order, bytes]]:
        """The orders that have come to the worker, with the weights that followed."""
        data, orders = self.read(), []
        while data:
            rest = ORDER_BYTES + order_rest_bytes(data[:ORDER_BYTES])
            order = Order.decode(data[:ORDER_BYTES], data[ORDER_BYTES:rest])
            end = rest + order.weights_bytes
            orders.append((order, data[rest:end]))
            data = data[end:]
        return orders


@pytest.fixture
def ends() -> Iterator[Callable[..., Ends]]:
    """Opens connections; arguments as for `Ends`."""
    opened: list[Ends] = []

    def open_ends(size: int = 1000, **options: Any) -> Ends:
        opened.append(Ends(size, **options))
        return opened[-1]

    yield open_ends
    for each in opened:
        each.connection.close()
        each.worker.close()
