"""The parameter server's end of a line: orders out and results in, whatever pieces they travel in."""

import socket
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from service.parameter_server.lines import Line, LineBrokenError
from service.parameter_server.reduction import Buffers
from workers.frames import ACTIVITIES, ORDER_BYTES, Order, Report, ReportKind, order_rest_bytes
from workers.tickets import Refusal, Result, Ticket, TicketKind

SIZE = 1000
TICKET = Ticket(5, TicketKind.GRADIENT, 2)
SECONDS = [0.25] * len(ACTIVITIES)


class Ends:
    """A line, and the socket of the worker at its other end."""

    def __init__(self, size: int = SIZE, *, shared: bool = False, socket_bytes: int | None = None) -> None:
        here, self.worker = socket.socketpair()
        for end in (here, self.worker) if socket_bytes else ():
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, socket_bytes)
        self.worker.setblocking(False)
        self.weights = np.arange(size, dtype=np.float64)
        self.memory = np.zeros(size) if shared else None
        self.buffers = Buffers(size, np.float64)
        self.line = Line(here, self.weights, self.buffers, self.memory)

    def orders(self) -> list[tuple[Order, bytes]]:
        """What came to the worker, with the weights that followed."""
        data, orders = self.read(), []
        while data:
            rest = ORDER_BYTES + order_rest_bytes(data[:ORDER_BYTES])
            order = Order.decode(data[:ORDER_BYTES], data[ORDER_BYTES:rest])
            end = rest + order.weights_bytes
            orders.append((order, data[rest:end]))
            data = data[end:]
        return orders

    def read(self) -> bytes:
        """What has come to the worker."""
        data = b""
        try:
            while more := self.worker.recv(1 << 20):
                data += more
        except BlockingIOError:
            pass
        return data


@pytest.fixture
def ends() -> Iterator[Callable[..., Ends]]:
    """Opens lines; arguments as for `Ends`."""
    opened: list[Ends] = []

    def open_line(*arguments: int, **options: bool | int) -> Ends:
        opened.append(Ends(*arguments, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield open_line
    for each in opened:
        each.line.close()
        each.worker.close()


def _result(gradient: np.ndarray | None = None, ticket: Ticket = TICKET, *, offset: int = 0) -> bytes:
    """The frame of a result with the numbers of a gradient."""
    data = b"" if gradient is None else gradient.tobytes()
    return Report(ReportKind.RESULT, 1, Result(ticket, 3, 1.5, 10, 4), offset, len(data), SECONDS).encode() + data


def _part(gradient: np.ndarray, start: int, stop: int) -> bytes:
    """The frame of the numbers from start to stop."""
    data = gradient[start:stop].tobytes()
    return Report.part(start * gradient.itemsize, len(data)).encode() + data


def _gradient(size: int = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size)


# -- in ----------------------------------------------------------------------------------------------------------------


def test_a_result_that_comes_byte_by_byte_is_one_result(ends: Callable[..., Ends]) -> None:
    """Nothing is told before the last byte, and then all of it."""
    pair, gradient = ends(10), _gradient(10)
    frame = _part(gradient, 4, 10) + _result(gradient[:4])
    for byte in frame[:-1]:
        pair.worker.send(bytes([byte]))
        assert pair.line.report() is None
    pair.worker.send(frame[-1:])
    report = pair.line.report()
    assert report is not None
    assert (report.attempt, report.seconds) == (1, SECONDS)
    assert np.array_equal(report.result.gradient, gradient)
    report.result.gradient = None
    assert report.result == Result(TICKET, 3, 1.5, 10, 4)


def test_results_that_come_together_are_told_one_by_one(ends: Callable[..., Ends]) -> None:
    """Three results in one piece are three reports with three gradients, in their order."""
    pair = ends()
    gradients = [_gradient(seed=seed) for seed in range(3)]
    frames = [_result(each, TICKET._replace(micro_batch=part)) for part, each in enumerate(gradients)]
    pair.worker.send(b"".join(frames))
    reports = [pair.line.report() for _ in range(3)]
    assert pair.line.report() is None
    for part, report in enumerate(reports):
        assert report is not None
        assert report.result.ticket.micro_batch == part
        assert np.array_equal(report.result.gradient, gradients[part])


@pytest.mark.parametrize("cuts", [[], [500], [999, 998, 1], list(range(SIZE - 1, 0, -1))], ids=len)
def test_the_parts_of_a_gradient_come_from_its_end(ends: Callable[..., Ends], cuts: list[int]) -> None:
    """However many parts, each has its place in the one vector."""
    pair, gradient = ends(), _gradient()
    edges, report = [SIZE, *cuts], None
    for stop, start in zip(edges[:-1], edges[1:], strict=True):
        pair.worker.send(_part(gradient, start, stop))
        assert pair.line.report() is None
    pair.worker.send(_result(gradient[: edges[-1]]))
    report = pair.line.report()
    assert report is not None
    assert np.array_equal(report.result.gradient, gradient)


WRONG_PARTS = {
    "from the beginning": lambda g: _part(g, 0, 10),
    "a gap": lambda g: _part(g, 900, 1000) + _part(g, 700, 800),
    "twice": lambda g: _part(g, 900, 1000) + _part(g, 900, 1000),
    "overlapping": lambda g: _part(g, 900, 1000) + _part(g, 850, 950),
    "a part too long": lambda g: Report.part(0, 8 * SIZE + 8).encode(),
    "beyond the end": lambda g: Report.part(8 * SIZE, 8).encode(),
    "far beyond the end": lambda g: Report.part(2**64 - 8, 8).encode(),
    "longer than anything": lambda g: Report.part(0, 2**64 - 1).encode(),
    "an empty part": lambda g: Report.part(8 * SIZE, 0).encode(),
    "a part of nothing": lambda g: _part(g, 0, 1000) + Report.part(0, 0).encode(),
    "a result too long": lambda g: _part(g, 900, 1000) + _result(g),
    "a result out of place": lambda g: _result(g[:10], offset=80),
    "no kind of report": lambda g: b"\0" + _result(g)[1:],
    "another kind of report": lambda g: b"\xff" + _result(g)[1:],
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_PARTS)
def test_what_no_worker_says_breaks_the_line(ends: Callable[..., Ends], case: str) -> None:
    """Numbers that belong nowhere are not read, and not waited for."""
    pair = ends()
    pair.worker.send(WRONG_PARTS[case](_gradient()))
    with pytest.raises(LineBrokenError):
        for _ in range(3):
            pair.line.report()


SHORT_GRADIENTS = {
    "nothing": lambda g: _result(),
    "only a part": lambda g: _part(g, 900, 1000) + _result(),
    "the end of a part": lambda g: _part(g, 900, 1000) + _result(g[800:900], offset=6400),
}


@pytest.mark.parametrize("case", SHORT_GRADIENTS)
def test_a_gradient_with_something_missing_is_none(ends: Callable[..., Ends], case: str) -> None:
    """The result comes without it, which the training refuses as WRONG_SIZE; the next gradient starts anew."""
    pair, gradient = ends(), _gradient()
    pair.worker.send(SHORT_GRADIENTS[case](gradient) + _result(gradient))
    report, whole = pair.line.report(), pair.line.report()
    assert report is not None
    assert report.result.gradient is None
    assert whole is not None
    assert np.array_equal(whole.result.gradient, gradient)


@pytest.mark.parametrize("kind", [TicketKind.EVALUATION, 0, 255])
@pytest.mark.parametrize("shared", [False, True])
def test_only_results_for_gradients_carry_one(ends: Callable[..., Ends], shared: bool, kind: int) -> None:
    """Whatever a worker has written or sent; what was sent in vain makes room for the next."""
    pair = ends(shared=shared)
    ticket = TICKET._replace(kind=kind)
    pair.worker.send(_result(ticket=ticket) if shared else _result(_gradient(), ticket))
    report = pair.line.report()
    assert report is not None
    assert report.result.gradient is None
    assert len(pair.buffers._free) == (0 if shared else 1)


def test_a_shared_gradient_is_lent(ends: Callable[..., Ends]) -> None:
    """It is the worker's own memory, and cannot be written to by mistake."""
    pair = ends(shared=True)
    assert pair.memory is not None
    pair.worker.send(_result())
    report = pair.line.report()
    assert report is not None
    assert report.result.gradient is not None
    pair.memory[:] = 7
    assert report.result.gradient.sum() == 7 * SIZE
    assert not report.result.gradient.flags.writeable
    assert pair.memory.flags.writeable


@pytest.mark.parametrize("frame", [_result(np.ones(1)), Report.part(8 * SIZE - 8, 8).encode()], ids=["result", "part"])
def test_a_worker_that_shares_memory_sends_no_numbers(ends: Callable[..., Ends], frame: bytes) -> None:
    """There is one way for a gradient on each line."""
    pair = ends(shared=True)
    pair.worker.send(frame)
    with pytest.raises(LineBrokenError):
        pair.line.report()


def test_a_huge_gradient_is_received_as_it_comes(ends: Callable[..., Ends]) -> None:
    """8 MB through a socket that holds some kilobytes: `report` returns whenever there is nothing more."""
    pair, gradient = ends(1_000_000, socket_bytes=8192), _gradient(1_000_000)
    unsent, report = memoryview(_part(gradient, 500_000, 1_000_000) + _result(gradient[:500_000])), None
    while unsent:
        assert report is None
        unsent = unsent[pair.worker.send(unsent) :]
        report = pair.line.report()
    assert report is not None
    assert np.array_equal(report.result.gradient, gradient)


def test_a_worker_that_goes_breaks_its_line(ends: Callable[..., Ends]) -> None:
    """In the middle of a gradient or between two results; what it began to send makes room for others."""
    pair, gradient = ends(), _gradient()
    pair.worker.send(_part(gradient, 900, 1000))
    assert pair.line.report() is None
    pair.worker.close()
    with pytest.raises(LineBrokenError, match="closed"):
        pair.line.report()
    pair.line.close()
    pair.line.close()
    assert len(pair.buffers._free) == 1


# -- out ---------------------------------------------------------------------------------------------------------------


def test_weights_are_sent_once_for_each_version(ends: Callable[..., Ends]) -> None:
    """An order with tickets brings the weights that the worker does not have; one without never does."""
    pair = ends()
    pair.line.send([], [None], 0)
    pair.line.send([TICKET], [], 0)
    pair.line.send([TICKET], [Refusal.LATE, None], 0)
    pair.weights += 1
    pair.line.send([], [None], 1)
    pair.line.send([TICKET, TICKET], [], 1)
    orders = pair.orders()
    assert [len(weights) for _, weights in orders] == [0, 8 * SIZE, 0, 0, 8 * SIZE]
    assert orders[1][1] == (pair.weights - 1).tobytes()
    assert orders[4][1] == pair.weights.tobytes()
    assert orders[2][0] == Order([TICKET], [Refusal.LATE, None], 0)
    assert orders[4][0] == Order([TICKET, TICKET], [], 1, 8 * SIZE)


def test_who_shares_memory_is_sent_no_weights(ends: Callable[..., Ends]) -> None:
    """The order is all."""
    pair = ends(shared=True)
    pair.line.send([TICKET], [None], 9)
    assert pair.orders() == [(Order([TICKET], [None], 9), b"")]
    assert not pair.line.unsent


def test_huge_weights_wait_for_the_worker_to_read(ends: Callable[..., Ends]) -> None:
    """8 MB through a socket that holds some kilobytes: nothing blocks, and the bytes come in their order."""
    pair = ends(1_000_000, socket_bytes=8192)
    pair.line.send([TICKET], [], 1)
    pair.line.send([], [None], 1)
    assert pair.line.unsent
    data = b""
    while pair.line.unsent:
        pair.line.flush()
        data += pair.read()
    data += pair.read()
    order, rest = Order([TICKET], [], 1, 8_000_000), ORDER_BYTES + order_rest_bytes(data[:ORDER_BYTES])
    assert Order.decode(data[:ORDER_BYTES], data[ORDER_BYTES:rest]) == order
    assert data[rest : rest + 8_000_000] == pair.weights.tobytes()
    assert Order.decode(data[-ORDER_BYTES - 1 : -1], data[-1:]) == Order([], [None], 1)


def test_a_worker_that_does_not_read_is_not_written_to_without_end(ends: Callable[..., Ends]) -> None:
    """Its line breaks when it holds up more than some orders."""
    pair = ends(1_000_000, socket_bytes=8192)
    pair.line.send([TICKET], [], 1)
    with pytest.raises(LineBrokenError, match="does not read"):
        for _ in range(100):
            pair.line.send([], [Refusal.LATE], 1)


def test_what_cannot_be_sent_breaks_the_line(ends: Callable[..., Ends]) -> None:
    """A worker that is gone is noticed also by who only tells it something."""
    pair = ends()
    pair.worker.close()
    with pytest.raises(LineBrokenError):
        pair.line.send([TICKET], [], 1)
