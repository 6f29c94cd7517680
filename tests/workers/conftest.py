"""What tests of the worker share: something to do, and looks at its connection."""

import gc
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from nablad.jobspec import complete, parse
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from workers.transport.frames import REPORT_BYTES, Report
from workers.transport.handshake import HANDSHAKE
from workers.transport.session import SECRET_KEY
from workers.worker import work

SECRET, TOKEN = "s", b"t" * 32
SECONDS = 30  # until a connection that a worker attends for must be there

End = tuple[grpc.StatusCode, str] | None
Script = Callable[[socket.socket], End]


@pytest.fixture
def small_assignment(assignment: Callable[..., ps_pb.Assignment]) -> ps_pb.Assignment:
    """Two epochs of steps with 16, 16, 16 and 2 rows, in up to three micro-batches; each evaluation has two tickets."""
    spec, violations = parse("""
        data: {train: train, validation: validation, scaling: standard}
        model: {layers: [6, 5, 3], activation: sigmoid, output_activation: sigmoid, dtype: float64}
        cost: {function: log_loss}
        training: {epochs: 2, batch_size: 16, seed: 3}
        distribution: {workers: 2, micro_batches: 3}
        """)
    assert not violations
    return assignment(complete(spec), rows=50, validation_rows=1200)


@pytest.fixture
def no_file_stays_open() -> Iterator[None]:
    """As many files are open after the test as before."""
    before = _open_files()
    yield
    assert _open_files() == before


def _open_files() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def _receive(connection: socket.socket, count: int) -> bytes:
    data = b""
    while missing := count - len(data):
        more = connection.recv(missing)
        assert more, f"the other end closed it, {missing} of {count} bytes too early"
        data += more
    return data


@pytest.fixture
def receive() -> Callable[[socket.socket, int], bytes]:
    """Receives exactly so many bytes."""
    return _receive


@pytest.fixture
def receive_report() -> Callable[[socket.socket], tuple[Report, bytes]]:
    """Receives a report, and the numbers that follow it."""

    def receive(connection: socket.socket) -> tuple[Report, bytes]:
        report = Report.decode(_receive(connection, REPORT_BYTES))
        return report, _receive(connection, report.length)

    return receive


class _ParameterServer(ps_grpc.ParameterServerServiceServicer):
    """A parameter server that does in each session what a script says, and ends the membership as this says.

    Attributes:
        joined: What workers said when they joined.
        sessions: What happens in the first session, the second, and so on.
    """

    def __init__(self, assignment: ps_pb.Assignment) -> None:
        self.joined: list[ps_pb.JoinRequest] = []
        self.sessions: list[Script] = []
        self._assignment = assignment
        self._connections: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        self._opened: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        host, port = self._listener.getsockname()
        self._inline_connection = ps_pb.InlineConnection(host=host, port=port)
        self._thread = threading.Thread(target=self._open_connections)
        self._thread.start()
        self._server = grpc.server(ThreadPoolExecutor(4))
        ps_grpc.add_ParameterServerServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def close_port(self) -> None:
        """No connection can be opened any more."""
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
            worker_id="worker-1", assignment=self._assignment, inline_connection=self._inline_connection, token=TOKEN
        )

    def Attend(self, request: ps_pb.AttendRequest, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        assert request.worker_id == "worker-1"
        if end := self.sessions.pop(0)(self._connections.get(timeout=SECONDS)):
            context.abort(*end)
        yield from ()

    def _open_connections(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # it was closed
                return
            connection.settimeout(SECONDS)
            self._opened.append(connection)
            assert _receive(connection, len(TOKEN)) == TOKEN
            connection.sendall(HANDSHAKE)
            self._connections.put(connection)


@pytest.fixture
def server(small_assignment: ps_pb.Assignment) -> Iterator[_ParameterServer]:
    """A parameter server with nothing to do yet."""
    server = _ParameterServer(small_assignment)
    yield server
    server.close()


@pytest.fixture
def start_worker() -> Iterator[Callable[..., "Future[None]"]]:
    """Starts a worker, on a thread as what it changes about its own must not stay."""
    with ThreadPoolExecutor() as threads:
        yield lambda address, secret=SECRET, blas_threads=1: threads.submit(
            work, address, secret, threads=blas_threads, message_bytes=1 << 20
        )
