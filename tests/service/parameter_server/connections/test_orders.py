"""Orders on the parameter server's end of a connection, however slowly their worker reads."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from service.parameter_server.transport.worker_connection import WorkerConnectionError
from workers.transport.frames import ORDER_BYTES, Order, order_rest_bytes
from workers.transport.tickets import Rejection, Ticket, TicketKind

MakeEnds = Callable[..., Any]

SIZE = 1000
TICKET = Ticket(5, TicketKind.GRADIENT, 2)


def test_weights_are_sent_once_for_each_version(ends: MakeEnds) -> None:
    """An order with tickets brings the weights that the worker does not have; one without never does."""
    pair = ends(SIZE)
    pair.connection.send_order([], [None], 0)
    pair.connection.send_order([TICKET], [], 0)
    pair.connection.send_order([TICKET], [Rejection.LATE, None], 0)
    pair.weights += 1
    pair.connection.send_order([], [None], 1)
    pair.connection.send_order([TICKET, TICKET], [], 1)
    orders = pair.orders()
    assert [len(weights) for _, weights in orders] == [0, 8 * SIZE, 0, 0, 8 * SIZE]
    assert orders[1][1] == (pair.weights - 1).tobytes()
    assert orders[4][1] == pair.weights.tobytes()
    assert orders[2][0] == Order([TICKET], [Rejection.LATE, None], 0)
    assert orders[4][0] == Order([TICKET, TICKET], [], 1, 8 * SIZE)


def test_who_shares_memory_is_sent_no_weights(ends: MakeEnds) -> None:
    """The order is all."""
    pair = ends(SIZE, shared=True)
    pair.connection.send_order([TICKET], [None], 9)
    assert pair.orders() == [(Order([TICKET], [None], 9), b"")]
    assert not pair.connection.has_unsent


def test_huge_weights_wait_for_the_worker_to_read(ends: MakeEnds) -> None:
    """8 MB through a socket that holds some kilobytes: nothing blocks, and the bytes come in their order."""
    pair = ends(1_000_000, socket_bytes=8192)
    pair.connection.send_order([TICKET], [], 1)
    pair.connection.send_order([], [None], 1)
    assert pair.connection.has_unsent
    data = bytearray()
    while pair.connection.has_unsent:
        pair.connection.flush()
        data += pair.read()
    data += pair.read()
    order, rest = Order([TICKET], [], 1, 8_000_000), ORDER_BYTES + order_rest_bytes(data[:ORDER_BYTES])
    assert Order.decode(data[:ORDER_BYTES], data[ORDER_BYTES:rest]) == order
    assert data[rest : rest + 8_000_000] == pair.weights.tobytes()
    assert Order.decode(data[-ORDER_BYTES - 1 : -1], data[-1:]) == Order([], [None], 1)


def test_a_worker_gets_the_version_of_its_order(ends: MakeEnds) -> None:
    """Version v is in buffer v % 2."""
    pair = ends(SIZE, buffers=2)
    for version in (4, 5, 6):
        pair.connection.send_order([TICKET], [], version)
    assert [weights for _, weights in pair.orders()] == [
        pair.weights.tobytes(), pair.other.tobytes(), pair.weights.tobytes(),
    ]  # fmt: skip


def test_weights_that_are_written_to_on_their_way_come_as_they_were(ends: MakeEnds) -> None:
    """A worker that reads slowly gets one version whole, if what is unsent is detached before the buffer is reused."""
    pair = ends(1_000_000, socket_bytes=8192, buffers=2)
    pair.connection.send_order([TICKET], [], 4)
    before, data = pair.weights.tobytes(), bytearray(pair.read())
    assert pair.connection.has_unsent
    pair.connection.detach_weights()
    pair.weights[:] = np.nan
    while pair.connection.has_unsent:
        pair.connection.flush()
        data += pair.read()
    data += pair.read()
    assert data[-len(before) :] == before


def test_a_worker_that_does_not_read_is_not_written_to_without_end(ends: MakeEnds) -> None:
    """Its connection breaks when it holds up more than some orders."""
    pair = ends(1_000_000, socket_bytes=8192)
    pair.connection.send_order([TICKET], [], 1)
    for _ in range(63):
        pair.connection.send_order([], [Rejection.LATE], 1)
    with pytest.raises(WorkerConnectionError, match="does not read"):
        pair.connection.send_order([], [Rejection.LATE], 1)


def test_what_cannot_be_sent_breaks_the_connection(ends: MakeEnds) -> None:
    """A worker that is gone is noticed also by who only tells it something."""
    pair = ends(SIZE)
    pair.worker.close()
    with pytest.raises(WorkerConnectionError):
        pair.connection.send_order([TICKET], [], 1)
