"""What tests of the worker share: something to do, and looks at its line."""

import gc
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nablad.spec import complete, parse
from nablad.v1 import parameter_server_pb2 as ps_pb
from workers.frames import REPORT_BYTES, Report


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
