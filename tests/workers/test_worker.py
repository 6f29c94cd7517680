"""The worker: what it does in a session, when it tries again, and when it gives up."""

import logging
import pickle
import socket
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from workers import worker as worker_module
from workers.computation import Computation
from workers.runtime.host import numeric_environment
from workers.transport.frames import ACTIVITIES, Report, encode_order
from workers.transport.session import ParameterServerLostError, RejectedError
from workers.transport.tickets import Rejection, Result, Ticket, TicketKind

StartWorker = Callable[..., "Future[None]"]
ReceiveReport = Callable[[socket.socket], tuple[Report, bytes]]
End = tuple[grpc.StatusCode, str] | None
Script = Callable[[socket.socket], End]

SECONDS = 30  # until a test gives up
LOST: End = (grpc.StatusCode.UNAVAILABLE, "it stops")


@pytest.fixture
def slow_clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The worker's clock and its pauses: nothing takes time but a pause, and that takes 10 s."""
    clock = SimpleNamespace(pauses=0)

    def sleep(_: float) -> None:
        clock.pauses += 1

    clock.monotonic, clock.sleep = lambda: clock.pauses * 10.0, sleep
    monkeypatch.setattr(worker_module, "time", clock)
    return clock


def _hang_up(connection: socket.socket) -> End:
    """The job is done."""
    connection.shutdown(socket.SHUT_RDWR)
    return None


# -- a session ---------------------------------------------------------------------------------------------------------


def test_every_ticket_of_an_order_is_answered(
    server: Any,
    start_worker: StartWorker,
    receive_report: ReceiveReport,
    small_assignment: ps_pb.Assignment,
) -> None:
    """One after each order, also the one that gives no new tickets; with what the worker's time went into so far.

    What its process has used is told too. Before, the worker says what it computes with.
    """
    computation = Computation(small_assignment)
    weights = np.linspace(-1, 1, computation.layout.size)
    tickets = [Ticket(2, kind, 1) for kind in (TicketKind.GRADIENT, TicketKind.EVALUATION)]
    came: list[tuple[Report, bytes]] = []

    def session(connection: socket.socket) -> End:
        connection.sendall(encode_order(tickets, [], 9, weights.nbytes) + weights.tobytes())
        came.append(receive_report(connection))
        connection.sendall(encode_order([], [None], 9))
        came.append(receive_report(connection))
        connection.sendall(encode_order([], [None], 9))
        return _hang_up(connection)

    server.sessions = [session]
    start_worker(server.address).result(SECONDS)
    assert [joined.arithmetic for joined in server.joined] == [numeric_environment()]
    seconds = []
    for ticket, (report, gradient) in zip(tickets, came, strict=True):
        expected = computation.answer(ticket, weights, 9, np.empty_like(weights))
        assert gradient == (b"" if expected.gradient is None else expected.gradient.tobytes())
        expected.gradient = None
        assert (report.attempt, report.result) == (small_assignment.attempt, expected)
        seconds.append(report.statistics[: len(ACTIVITIES)])
        assert all(0 < used < 2**40 for used in report.statistics[len(ACTIVITIES) :])
    assert all(0 <= first <= second for first, second in zip(*seconds, strict=True))
    assert seconds[1][1] > seconds[0][1] > 0  # computing


def test_a_rejected_result_is_told_and_its_ticket_answered_again(
    server: Any,
    start_worker: StartWorker,
    receive_report: ReceiveReport,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The worker goes on, and answers the same."""
    ticket = Ticket(0, TicketKind.GRADIENT, 0)
    came: list[tuple[Result, bytes]] = []

    def session(connection: socket.socket) -> End:
        for rejections in ([], [Rejection.NOT_FINITE]):
            connection.sendall(encode_order([ticket], rejections, 0))
            report, gradient = receive_report(connection)
            came.append((report.result, gradient))
        return _hang_up(connection)

    server.sessions = [session]
    with caplog.at_level(logging.WARNING):
        start_worker(server.address).result(SECONDS)
    assert came[0] == came[1]
    assert "a result was rejected: NOT_FINITE" in caplog.text


def test_new_tickets_replace_what_is_left_of_older_ones(
    server: Any,
    start_worker: StartWorker,
    receive_report: ReceiveReport,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A step that was applied without the worker is no work any more; that it was late is no warning."""
    old, new = ([Ticket(step, TicketKind.GRADIENT, part) for part in (0, 1)] for step in (0, 1))
    came: list[Ticket] = []

    def session(connection: socket.socket) -> End:
        orders = encode_order(old, [], 0), encode_order(new, [Rejection.LATE], 1), encode_order([], [None], 1)
        for order in orders:
            connection.sendall(order)
            came.append(receive_report(connection)[0].result.ticket)
        return _hang_up(connection)

    server.sessions = [session]
    with caplog.at_level(logging.WARNING):
        start_worker(server.address).result(SECONDS)
    assert came == [old[0], *new]
    assert "LATE" not in caplog.text


@pytest.mark.parametrize("threads", [1, 2])
def test_the_arithmetic_is_that_of_the_spec(
    server: Any,
    start_worker: StartWorker,
    receive_report: ReceiveReport,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
) -> None:
    """Exactly so many BLAS threads; and weights that overflow are no error: the parameter server says what to do."""
    seen: list[int] = []

    def limits(threads: int) -> threadpool_limits:
        seen.append(threads)
        return threadpool_limits(threads)

    def session(connection: socket.socket) -> End:
        huge = np.full(6 * 5 + 5 + 5 * 3 + 3, 1e308)
        connection.sendall(encode_order([Ticket(0, TicketKind.GRADIENT, 0)], [], 0, huge.nbytes) + huge.tobytes())
        report, gradient = receive_report(connection)
        assert not np.isfinite([report.result.sums.cost_sum, *np.frombuffer(gradient)]).all()
        return _hang_up(connection)

    monkeypatch.setattr(worker_module, "threadpool_limits", limits)
    server.sessions = [session]
    start_worker(server.address, blas_threads=threads).result(SECONDS)
    assert seen == [threads]


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def _answered_once(receive_report: ReceiveReport, end: End) -> Script:
    """A session that is lost after one result, with the connection left open."""

    def session(connection: socket.socket) -> End:
        connection.sendall(encode_order([Ticket(0, TicketKind.GRADIENT, 0)], [], 0))
        receive_report(connection)
        return end

    return session


def test_a_worker_that_was_cut_off_joins_again(
    server: Any,
    start_worker: StartWorker,
    receive_report: ReceiveReport,
    slow_clock: SimpleNamespace,
) -> None:
    """As often as it is cut off, over more than 30 s, so long as it came to work in between."""
    lost = _answered_once(receive_report, LOST)
    broken = _answered_once(receive_report, (grpc.StatusCode.INTERNAL, "half a message"))
    server.sessions = [lost, broken, lost, lost, lost, lost, _hang_up]
    start_worker(server.address).result(SECONDS)
    assert len(server.joined) == 7
    assert slow_clock.pauses == 6


class _EndedBefore(ps_grpc.ParameterServerServiceStub):
    """A membership has ended before anybody can look."""

    def __init__(self, channel: grpc.Channel) -> None:
        super().__init__(channel)
        attend = self.Attend

        def attend_to_the_end(*arguments: Any, **options: Any) -> Any:
            call = attend(*arguments, **options)
            call.code()
            return call

        self.Attend = attend_to_the_end


def test_a_membership_that_ends_at_once_ends_the_session(
    server: Any,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    slow_clock: SimpleNamespace,
) -> None:
    """Though the connection stays open: nobody would ever send an order over it."""
    monkeypatch.setattr(worker_module.ps_grpc, "ParameterServerServiceStub", _EndedBefore)
    server.sessions = [lambda _: LOST, lambda _: None]
    start_worker(server.address).result(SECONDS)
    assert len(server.joined) == 2


def test_a_parameter_server_that_is_gone_is_tried_for_30_seconds(
    start_worker: StartWorker, slow_clock: SimpleNamespace
) -> None:
    """Then the worker says so, and what it says can be carried to the service."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ParameterServerLostError, match="refused") as lost:
        start_worker(f"127.0.0.1:{port}").result(SECONDS)
    assert slow_clock.pauses == 4  # at 0, 10, 20, 30 and 40 s
    _require_carried(lost.value)


def test_a_connection_that_cannot_be_opened_is_tried_for_30_seconds(
    server: Any, start_worker: StartWorker, slow_clock: SimpleNamespace
) -> None:
    """The reason names the port that is meant."""
    server.close_port()
    with pytest.raises(ParameterServerLostError, match="port for weights and gradients cannot be reached") as lost:
        start_worker(server.address).result(SECONDS)
    assert len(server.joined) == slow_clock.pauses + 1 == 5
    _require_carried(lost.value)


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED]
)
def test_a_worker_that_is_not_wanted_does_not_come_back(
    server: Any, start_worker: StartWorker, code: grpc.StatusCode
) -> None:
    """It says why."""
    server.sessions = [lambda _: (code, "another host")]
    with pytest.raises(RejectedError, match="another host") as rejected:
        start_worker(server.address).result(SECONDS)
    assert len(server.joined) == 1
    _require_carried(rejected.value)


def test_a_wrong_secret_is_rejected_at_once(server: Any, start_worker: StartWorker) -> None:
    """Before the worker learns anything of the job."""
    with pytest.raises(RejectedError, match="not the secret of this job") as rejected:
        start_worker(server.address, "wrong").result(SECONDS)
    assert server.joined == []
    _require_carried(rejected.value)


def _require_carried(error: Exception) -> None:
    """Ray carries what a worker raises between processes, without its cause, which could not be."""
    carried = pickle.loads(pickle.dumps(error))  # noqa: S301 (of our own making)
    assert type(carried) is type(error)
    assert str(carried) == str(error) != ""
