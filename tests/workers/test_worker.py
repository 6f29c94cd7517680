"""The worker: what it does in a session, when it tries again, and when it gives up."""

import logging
import pickle
import queue
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from threadpoolctl import threadpool_info

from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from workers import worker as worker_module
from workers.computation import Computation
from workers.frames import Report, encode_order
from workers.line import HANDSHAKE
from workers.tickets import Refusal, Result, Ticket, TicketKind
from workers.worker import (
    SECRET_KEY,
    ParameterServerLostError,
    RefusedError,
    channel_options,
    host_fingerprint,
    work,
)

SECRET, TOKEN = "s", b"t" * 32
MESSAGE_BYTES = 1 << 20
SECONDS = 30  # until a test gives up

End = tuple[grpc.StatusCode, str] | None
Script = Callable[[socket.socket], End]

LOST: End = (grpc.StatusCode.UNAVAILABLE, "it stops")


class _ParameterServer(ps_grpc.ParameterServerServiceServicer):
    """A parameter server that does in each session what a script says, and ends the membership as this says.

    Attributes:
        joined: What workers said when they joined.
        sessions: What happens in the first session, the second, and so on.
    """

    def __init__(self, assignment: ps_pb.Assignment, receive: Callable[[socket.socket, int], bytes]) -> None:
        self.joined: list[ps_pb.JoinRequest] = []
        self.sessions: list[Script] = []
        self._assignment = assignment
        self._receive = receive
        self._lines: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        self._opened: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        host, port = self._listener.getsockname()
        self._inline_line = ps_pb.InlineLine(host=host, port=port)
        self._thread = threading.Thread(target=self._open_lines)
        self._thread.start()
        self._server = grpc.server(ThreadPoolExecutor(4))
        ps_grpc.add_ParameterServerServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def close_port(self) -> None:
        """No line can be opened any more."""
        if self._thread.is_alive():
            self._listener.shutdown(socket.SHUT_RDWR)
            self._thread.join()
            self._listener.close()

    def close(self) -> None:
        self._server.stop(0).wait()
        self.close_port()
        for connection in self._opened:
            connection.close()

    def Join(self, request: ps_pb.JoinRequest, context: grpc.ServicerContext) -> ps_pb.JoinResponse:  # noqa: N802
        if (SECRET_KEY, SECRET) not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "this is not the secret of this job")
        self.joined.append(request)
        return ps_pb.JoinResponse(
            worker_id="worker-1", assignment=self._assignment, inline_line=self._inline_line, token=TOKEN
        )

    def Attend(self, request: ps_pb.AttendRequest, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        assert request.worker_id == "worker-1"
        if end := self.sessions.pop(0)(self._lines.get(timeout=SECONDS)):
            context.abort(*end)
        yield from ()

    def _open_lines(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # it was closed
                return
            connection.settimeout(SECONDS)
            self._opened.append(connection)
            assert self._receive(connection, len(TOKEN)) == TOKEN
            connection.sendall(HANDSHAKE)
            self._lines.put(connection)


@pytest.fixture
def server(
    small_assignment: ps_pb.Assignment, receive: Callable[[socket.socket, int], bytes]
) -> Iterator[_ParameterServer]:
    """A parameter server with nothing to do yet."""
    server = _ParameterServer(small_assignment, receive)
    yield server
    server.close()


@pytest.fixture
def start_worker() -> Iterator[Callable[..., "Future[None]"]]:
    """Starts a worker, on a thread as what it changes about its own must not stay."""
    with ThreadPoolExecutor() as threads:
        yield lambda address, secret=SECRET, blas_threads=1: threads.submit(
            work, address, secret, threads=blas_threads, message_bytes=MESSAGE_BYTES
        )


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
    server: _ParameterServer,
    start_worker: Callable[..., "Future[None]"],
    receive_report: Callable[[socket.socket], tuple[Report, bytes]],
    small_assignment: ps_pb.Assignment,
) -> None:
    """One after each order, also the one that gives no new tickets; with what the worker's time went into so far."""
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
    seconds = []
    for ticket, (report, gradient) in zip(tickets, came, strict=True):
        expected = computation.answer(ticket, weights, 9, np.empty_like(weights))
        assert gradient == (b"" if expected.gradient is None else expected.gradient.tobytes())
        expected.gradient = None
        assert (report.attempt, report.result) == (small_assignment.attempt, expected)
        seconds.append(report.seconds)
    assert all(0 <= first <= second for first, second in zip(*seconds, strict=True))
    assert seconds[1][1] > seconds[0][1] > 0  # computing


def test_a_refused_result_is_told_and_its_ticket_answered_again(
    server: _ParameterServer,
    start_worker: Callable[..., "Future[None]"],
    receive_report: Callable[[socket.socket], tuple[Report, bytes]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The worker goes on, and answers the same."""
    ticket = Ticket(0, TicketKind.GRADIENT, 0)
    came: list[tuple[Result, bytes]] = []

    def session(connection: socket.socket) -> End:
        for refusals in ([], [Refusal.NOT_FINITE]):
            connection.sendall(encode_order([ticket], refusals, 0))
            report, gradient = receive_report(connection)
            came.append((report.result, gradient))
        return _hang_up(connection)

    server.sessions = [session]
    with caplog.at_level(logging.WARNING):
        start_worker(server.address).result(SECONDS)
    assert came[0] == came[1]
    assert "a result was refused: NOT_FINITE" in caplog.text


@pytest.mark.parametrize("threads", [1, 2])
def test_the_arithmetic_is_that_of_the_spec(
    server: _ParameterServer,
    start_worker: Callable[..., "Future[None]"],
    receive_report: Callable[[socket.socket], tuple[Report, bytes]],
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
) -> None:
    """Exactly so many BLAS threads; and weights that overflow are no error: the parameter server says what to do."""
    seen: list[set[int]] = []

    class Spy(Computation):
        def answer(self, *arguments: Any) -> Result:
            seen.append({each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"})
            return super().answer(*arguments)

    def session(connection: socket.socket) -> End:
        huge = np.full(6 * 5 + 5 + 5 * 3 + 3, 1e308)
        connection.sendall(encode_order([Ticket(0, TicketKind.GRADIENT, 0)], [], 0, huge.nbytes) + huge.tobytes())
        report, gradient = receive_report(connection)
        assert not np.isfinite([report.result.cost_sum, *np.frombuffer(gradient)]).all()
        return _hang_up(connection)

    monkeypatch.setattr(worker_module, "Computation", Spy)
    server.sessions = [session]
    start_worker(server.address, blas_threads=threads).result(SECONDS)
    assert seen == [{threads}]


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def _answered_once(receive_report: Callable[[socket.socket], tuple[Report, bytes]], end: End) -> Script:
    """A session that is lost after one result, with the line left open."""

    def session(connection: socket.socket) -> End:
        connection.sendall(encode_order([Ticket(0, TicketKind.GRADIENT, 0)], [], 0))
        receive_report(connection)
        return end

    return session


def test_a_worker_that_was_cut_off_joins_again(
    server: _ParameterServer,
    start_worker: Callable[..., "Future[None]"],
    receive_report: Callable[[socket.socket], tuple[Report, bytes]],
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
    server: _ParameterServer,
    start_worker: Callable[..., "Future[None]"],
    monkeypatch: pytest.MonkeyPatch,
    slow_clock: SimpleNamespace,
) -> None:
    """Though the line stays open: nobody would ever send an order over it."""
    monkeypatch.setattr(worker_module.ps_grpc, "ParameterServerServiceStub", _EndedBefore)
    server.sessions = [lambda _: LOST, lambda _: None]
    start_worker(server.address).result(SECONDS)
    assert len(server.joined) == 2


def test_a_parameter_server_that_is_gone_is_tried_for_30_seconds(
    start_worker: Callable[..., "Future[None]"], slow_clock: SimpleNamespace
) -> None:
    """Then the worker says so, and what it says can be carried to the service."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ParameterServerLostError, match="refused") as lost:
        start_worker(f"127.0.0.1:{port}").result(SECONDS)
    assert slow_clock.pauses == 4  # at 0, 10, 20, 30 and 40 s
    _require_carried(lost.value)


def test_a_line_that_cannot_be_opened_is_tried_for_30_seconds(
    server: _ParameterServer, start_worker: Callable[..., "Future[None]"], slow_clock: SimpleNamespace
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
    server: _ParameterServer, start_worker: Callable[..., "Future[None]"], code: grpc.StatusCode
) -> None:
    """It says why."""
    server.sessions = [lambda _: (code, "another host")]
    with pytest.raises(RefusedError, match="another host") as refused:
        start_worker(server.address).result(SECONDS)
    assert len(server.joined) == 1
    _require_carried(refused.value)


def test_a_wrong_secret_is_refused_at_once(
    server: _ParameterServer, start_worker: Callable[..., "Future[None]"]
) -> None:
    """Before the worker learns anything of the job."""
    with pytest.raises(RefusedError, match="not the secret of this job") as refused:
        start_worker(server.address, "wrong").result(SECONDS)
    assert server.joined == []
    _require_carried(refused.value)


def _require_carried(error: Exception) -> None:
    """Ray carries what a worker raises between processes, without its cause, which could not be."""
    carried = pickle.loads(pickle.dumps(error))  # noqa: S301 (of our own making)
    assert type(carried) is type(error)
    assert str(carried) == str(error) != ""


# -- who it is ---------------------------------------------------------------------------------------------------------

_PRINT_FINGERPRINT = [sys.executable, "-c", "from workers.worker import host_fingerprint; print(host_fingerprint())"]


def _fingerprint_of_process(*prefix: str) -> str:
    said = subprocess.run(
        [*prefix, *_PRINT_FINGERPRINT], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    return said.stdout.strip()


def test_processes_of_a_host_have_one_fingerprint() -> None:
    """It tells the parameter server who can share memory with it."""
    assert _fingerprint_of_process() == host_fingerprint()


def test_a_container_of_the_same_host_has_another_fingerprint() -> None:
    """Its Unix sockets are others, though its kernel, and maybe its name, is the same."""
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "--net", "true"], capture_output=True, check=False).returncode:
        pytest.skip("a network namespace cannot be made here")
    assert _fingerprint_of_process(unshare, "--net") != host_fingerprint()


@pytest.mark.parametrize(("message_bytes", "most"), [(0, 1 << 20), (5 << 20, 6 << 20), ((1 << 31) - 5, (1 << 31) - 1)])
def test_channels_take_what_a_message_carries(message_bytes: int, most: int) -> None:
    """And a little beside it, but not more than gRPC can be told."""
    options = dict(channel_options(message_bytes))
    assert options["grpc.max_receive_message_length"] == options["grpc.max_send_message_length"] == most
