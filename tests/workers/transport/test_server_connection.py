"""A connection at work: orders in, results out, whatever pieces the bytes come in and whenever it breaks."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from workers.mathematics.parameters import ParameterLayout
from workers.mathematics.sums import SampleSums
from workers.transport import server_connection as line_module
from workers.transport.frames import WORKER_STATISTICS, Order, Report, ReportKind, encode_order
from workers.transport.server_connection import ServerConnection
from workers.transport.tickets import Rejection, Result, Ticket, TicketKind

ReceiveReport = Callable[[socket.socket], tuple[Report, bytes]]
NewLine = Callable[..., ServerConnection]

LAYOUT = ParameterLayout((4, 3, 2), bias=True)
# W(2) and b(2) have 100 KiB, so that they wait for W(1) and b(1); what W(0) and b(0) have goes with the result.
WIDE = ParameterLayout((200, 256, 200, 128), bias=True)
PART_BYTES = 256 * 1024
TICKET = Ticket(7, TicketKind.GRADIENT, 3)
TOLD = (0.5,) * len(WORKER_STATISTICS)
WEIGHTS = np.arange(LAYOUT.size, dtype=np.float32)


class _Dribbling(socket.socket):
    """Takes and gives only a few bytes at a time."""

    bytes_at_a_time = 1

    def recv_into(self, buffer: Any, _: int = 0, flags: int = 0) -> int:
        return super().recv_into(buffer, min(len(buffer), self.bytes_at_a_time), flags)

    def sendmsg(self, buffers: Any) -> int:
        return super().send(b"".join(buffers)[: self.bytes_at_a_time])


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The worker's end of a connection, and the parameter server's."""
    worker, server = socket.socketpair()
    for end in (worker, server):
        end.settimeout(20)
    worker.settimeout(None)
    with worker, server:
        yield worker, server


@pytest.fixture
def new_connection(ends: tuple[socket.socket, socket.socket]) -> Iterator[NewLine]:
    """Lines over the worker's end; closed when the test is over."""
    connections: list[ServerConnection] = []

    def make(layout: ParameterLayout = LAYOUT, *, shared: bool = False, connection: Any = None) -> ServerConnection:
        weights, gradient = np.zeros(layout.size, np.float32), np.zeros(layout.size, np.float32)
        connections.append(
            ServerConnection(connection or ends[0], [weights], gradient, None if shared else layout.starts)
        )
        return connections[-1].__enter__()

    yield make
    for connection in connections:
        connection.__exit__()


def _result(gradient: np.ndarray | None) -> Result:
    return Result(TICKET, 5, SampleSums(1.5, 250, 17), gradient)


# -- orders ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bytes_at_a_time", [1, 2, 23, 1000])
def test_orders_arrive_in_any_pieces(
    ends: tuple[socket.socket, socket.socket], new_connection: NewLine, bytes_at_a_time: int
) -> None:
    """With weights and without: the weights are those of the last order that had any."""
    slow = _Dribbling(fileno=ends[0].detach())
    slow.bytes_at_a_time = bytes_at_a_time
    connection, server = new_connection(connection=slow), ends[1]
    first = Order([TICKET, TICKET._replace(step=8)], [None, Rejection.LATE], 5, WEIGHTS.nbytes)
    second = Order([], [Rejection.NOT_FINITE], 5)
    server.sendall(encode_order(*first) + WEIGHTS.tobytes() + encode_order(*second))
    assert connection.next_order() == first
    np.testing.assert_array_equal(connection.weights, WEIGHTS)
    assert connection.next_order() == second
    np.testing.assert_array_equal(connection.weights, WEIGHTS)


def test_a_worker_reads_the_version_of_its_order(ends: tuple[socket.socket, socket.socket]) -> None:
    """Where memory is shared, version v lies in buffer v % 2."""
    versions = [np.zeros(2), np.ones(2)]
    with ServerConnection(ends[0], versions, np.zeros(2)) as connection:
        for version in (4, 5, 7, 8):
            ends[1].sendall(encode_order([TICKET], [], version))
            assert connection.next_order() == Order([TICKET], [], version)
            assert connection.weights is versions[version % 2]


def test_a_connection_that_ends_anywhere_gives_no_order(new_connection: NewLine) -> None:
    """Also in the middle of an order, at every byte of it."""
    frame = encode_order([TICKET], [None], 5, WEIGHTS.nbytes) + WEIGHTS.tobytes()
    for end in range(len(frame)):
        worker, server = socket.socketpair()
        with server:
            server.sendall(frame[:end])
        assert new_connection(connection=worker).next_order() is None


def test_a_connection_that_is_torn_gives_no_order_and_takes_results(new_connection: NewLine) -> None:
    """A reset is no error: what becomes of the worker's membership says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        worker = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    connection = new_connection(connection=worker)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset
    server.close()
    assert connection.next_order() is None
    connection.start_gradient()
    connection.send_result(_result(connection.gradient), 1, TOLD)
    connection.send_result(_result(connection.gradient), 1, TOLD)
    assert connection.next_order() is None


class _Announcing(socket.socket):
    """Says when it has looked in vain, and when it goes to sleep."""

    def __init__(self, fileno: int, looked: Callable[[], None], asleep: Callable[[], None]) -> None:
        super().__init__(fileno=fileno)
        self.looked, self.asleep = looked, asleep

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        if not flags:
            self.asleep()
        try:
            return super().recv_into(buffer, nbytes, flags)
        except BlockingIOError:
            self.looked()
            raise


def _never() -> None:
    pytest.fail("this must not happen")


def _ignore() -> None: ...


@pytest.mark.parametrize("awake", [True, False])
def test_an_order_that_comes_late_is_received(
    ends: tuple[socket.socket, socket.socket], new_connection: NewLine, monkeypatch: pytest.MonkeyPatch, awake: bool
) -> None:
    """While the worker looks for it, and when it has gone to sleep."""
    monkeypatch.setattr(line_module, "_SPIN_SECONDS", 60.0 if awake else 0.0)
    order = Order([], [], 5)

    def send() -> None:
        ends[1].sendall(encode_order(*order))

    looked, asleep = (send, _never) if awake else (_never, send)
    assert new_connection(connection=_Announcing(ends[0].detach(), looked, asleep)).next_order() == order


def test_closing_wakes_who_waits_for_an_order(
    ends: tuple[socket.socket, socket.socket], new_connection: NewLine
) -> None:
    """From another thread, as when the worker's membership ends; and it may be closed again."""
    asleep, orders = threading.Event(), []
    connection = new_connection(connection=_Announcing(ends[0].detach(), _ignore, asleep.set))
    waiting = threading.Thread(target=lambda: orders.append(connection.next_order()))
    waiting.start()
    assert asleep.wait(20)
    connection.close()
    waiting.join(20)
    assert orders == [None]
    connection.close()
    assert connection.next_order() is None


# -- results -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False])
def test_a_result_is_said_as_it_is(
    ends: tuple[socket.socket, socket.socket], new_connection: NewLine, receive_report: ReceiveReport, shared: bool
) -> None:
    """A small gradient follows in one piece, unless memory is shared: then the report is only the bell."""
    connection = new_connection(shared=shared)
    connection.start_gradient()
    connection.gradient[:] = WEIGHTS
    for layer in (1, 0):
        connection.layer_done(layer)
    connection.send_result(_result(connection.gradient), 2, TOLD)
    report, gradient = receive_report(ends[1])
    assert report == Report(ReportKind.RESULT, 2, _result(None), 0, 0 if shared else WEIGHTS.nbytes, TOLD)
    assert gradient == (b"" if shared else WEIGHTS.tobytes())


def test_an_evaluation_sends_no_gradient(
    ends: tuple[socket.socket, socket.socket], new_connection: NewLine, receive_report: ReceiveReport
) -> None:
    """Nor does the next gradient begin in the middle."""
    connection = new_connection()
    connection.start_gradient()
    connection.send_result(_result(None), 2, TOLD)
    assert receive_report(ends[1])[0].length == 0
    connection.start_gradient()
    connection.send_result(_result(connection.gradient), 2, TOLD)
    assert receive_report(ends[1])[0].length == connection.gradient.nbytes


def test_parts_of_a_gradient_are_on_their_way_while_earlier_layers_are_computed(
    ends: tuple[socket.socket, socket.socket], new_connection: NewLine, receive_report: ReceiveReport
) -> None:
    """From the last layer on, merged until they have 256 KiB; W(0) goes with the result."""
    connection, server = new_connection(WIDE), ends[1]
    numbers = np.random.default_rng(1).random(WIDE.size, np.float32)
    for _ in range(2):  # buffers and counts are right again for the next ticket
        connection.gradient.fill(0)
        connection.start_gradient()
        connection.gradient[WIDE.starts[2] :] = numbers[WIDE.starts[2] :]
        connection.layer_done(2)
        connection.gradient[WIDE.starts[1] : WIDE.starts[2]] = numbers[WIDE.starts[1] : WIDE.starts[2]]
        connection.layer_done(1)
        part, later_layers = receive_report(server)
        connection.gradient[: WIDE.starts[1]] = numbers[: WIDE.starts[1]]
        connection.layer_done(0)
        connection.send_result(_result(connection.gradient), 2, TOLD)
        report, first_layer = receive_report(server)
        assert (part.kind, report.kind) == (ReportKind.PART, ReportKind.RESULT)
        assert (part.offset, report.offset) == (WIDE.starts[1] * 4, 0)
        assert part.length >= PART_BYTES
        assert first_layer + later_layers == numbers.tobytes()


@pytest.mark.parametrize("bytes_at_a_time", [1, 100, 120, 400_000])
def test_a_connection_that_takes_little_at_a_time_gets_everything(
    ends: tuple[socket.socket, socket.socket],
    new_connection: NewLine,
    receive_report: ReceiveReport,
    bytes_at_a_time: int,
) -> None:
    """Wherever the system cuts what it is given: in the report, between report and gradient, in the gradient."""
    narrow = _Dribbling(fileno=ends[0].detach())
    narrow.bytes_at_a_time = bytes_at_a_time
    connection = new_connection(WIDE, connection=narrow)
    connection.gradient[:] = np.arange(WIDE.size)
    received: list[tuple[Report, bytes]] = []
    reader = threading.Thread(target=lambda: received.extend(receive_report(ends[1]) for _ in range(2)))
    reader.start()
    connection.start_gradient()
    for layer in (2, 1, 0):
        connection.layer_done(layer)
    connection.send_result(_result(connection.gradient), 1, TOLD)
    reader.join(20)
    (_, later_layers), (_, first_layer) = received
    assert first_layer + later_layers == connection.gradient.tobytes()


def test_a_part_that_nobody_reads_does_not_hold_the_end_up(no_file_stays_open: None) -> None:
    """A worker whose membership ends leaves, though its gradient is stuck on the way."""
    layout = ParameterLayout((10, 10, 500_000), bias=False)  # more than any socket takes unread
    vector = np.zeros(layout.size, np.float32)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        worker = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with server, ServerConnection(worker, [vector], vector, layout.starts) as connection:
        connection.start_gradient()
        connection.layer_done(1)
        assert server.recv(1) == bytes([ReportKind.PART])
