"""Results on the parameter server's end of a connection, whatever pieces they come in."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from service.parameter_server.transport.worker_connection import WorkerConnectionError
from workers.mathematics.sums import SampleSums
from workers.transport.frames import WORKER_STATISTICS, Report, ReportKind
from workers.transport.tickets import Result, Ticket, TicketKind

MakeEnds = Callable[..., Any]

SIZE = 1000
TICKET = Ticket(5, TicketKind.GRADIENT, 2)
TOLD = (0.25,) * len(WORKER_STATISTICS)


def _result(gradient: np.ndarray | None = None, ticket: Ticket = TICKET, *, offset: int = 0) -> bytes:
    """The frame of a result with the numbers of a gradient."""
    data = b"" if gradient is None else gradient.tobytes()
    return (
        Report(ReportKind.RESULT, 1, Result(ticket, 3, SampleSums(1.5, 10, 4)), offset, len(data), TOLD).encode() + data
    )


def _part(gradient: np.ndarray, start: int, stop: int) -> bytes:
    """The frame of the numbers from start to stop."""
    data = gradient[start:stop].tobytes()
    return Report.part(start * gradient.itemsize, len(data)).encode() + data


def _gradient(size: int = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size)


def test_a_result_that_comes_byte_by_byte_is_one_result(ends: MakeEnds) -> None:
    """Nothing is told before the last byte, and then all of it."""
    pair, gradient = ends(10), _gradient(10)
    frame = _part(gradient, 4, 10) + _result(gradient[:4])
    for byte in frame[:-1]:
        pair.worker.send(bytes([byte]))
        assert pair.connection.receive_report() is None
    pair.worker.send(frame[-1:])
    report = pair.connection.receive_report()
    assert (report.attempt, report.statistics) == (1, TOLD)
    assert np.array_equal(report.result.gradient, gradient)
    report.result.gradient = None
    assert report.result == Result(TICKET, 3, SampleSums(1.5, 10, 4))


def test_results_that_come_together_are_told_one_by_one(ends: MakeEnds) -> None:
    """Three results in one piece are three reports with three gradients, in their order."""
    pair = ends(SIZE)
    gradients = [_gradient(seed=seed) for seed in range(3)]
    frames = [_result(each, TICKET._replace(micro_batch=part)) for part, each in enumerate(gradients)]
    pair.worker.send(b"".join(frames))
    reports = [pair.connection.receive_report() for _ in range(3)]
    assert pair.connection.receive_report() is None
    for part, report in enumerate(reports):
        assert report.result.ticket.micro_batch == part
        assert np.array_equal(report.result.gradient, gradients[part])


@pytest.mark.parametrize("cuts", [[], [500], [999, 998, 1], list(range(SIZE - 1, 0, -1))], ids=len)
def test_the_parts_of_a_gradient_come_from_its_end(ends: MakeEnds, cuts: list[int]) -> None:
    """However many parts, each has its place in the one vector."""
    pair, gradient = ends(SIZE), _gradient()
    edges, report = [SIZE, *cuts], None
    for stop, start in pairwise(edges):
        pair.worker.send(_part(gradient, start, stop))
        assert pair.connection.receive_report() is None
    pair.worker.send(_result(gradient[: edges[-1]]))
    report = pair.connection.receive_report()
    assert np.array_equal(report.result.gradient, gradient)


G = _gradient()
WRONG_PARTS = {
    "from the beginning": _part(G, 0, 10),
    "a gap": _part(G, 900, 1000) + _part(G, 700, 800),
    "twice": _part(G, 900, 1000) + _part(G, 900, 1000),
    "overlapping": _part(G, 900, 1000) + _part(G, 850, 950),
    "a part too long": Report.part(0, 8 * SIZE + 8).encode(),
    "beyond the end": Report.part(8 * SIZE, 8).encode(),
    "far beyond the end": Report.part(2**64 - 8, 8).encode(),
    "longer than anything": Report.part(0, 2**64 - 1).encode(),
    "an empty part": Report.part(8 * SIZE, 0).encode(),
    "a part of nothing": _part(G, 0, 1000) + Report.part(0, 0).encode(),
    "a result too long": _part(G, 900, 1000) + _result(G),
    "a result out of place": _result(G[:10], offset=80),
    "no kind of report": b"\0" + _result(G)[1:],
    "another kind of report": b"\xff" + _result(G)[1:],
}


@pytest.mark.parametrize("case", WRONG_PARTS)
def test_what_no_worker_says_breaks_the_connection(ends: MakeEnds, case: str) -> None:
    """Numbers that belong nowhere are not read, and not waited for."""
    pair = ends(SIZE)
    pair.worker.send(WRONG_PARTS[case])
    with pytest.raises(WorkerConnectionError, match="it announces"):
        pair.connection.receive_report()


SHORT_GRADIENTS = {
    "nothing": _result(),
    "only a part": _part(G, 900, 1000) + _result(),
    "the end of a part": _part(G, 900, 1000) + _result(G[800:900], offset=6400),
}


@pytest.mark.parametrize("case", SHORT_GRADIENTS)
def test_a_gradient_with_something_missing_is_none(ends: MakeEnds, case: str) -> None:
    """The result comes without it, which the training rejects as WRONG_SIZE; the next gradient starts anew."""
    pair = ends(SIZE)
    pair.worker.send(SHORT_GRADIENTS[case] + _result(G))
    report, whole = pair.connection.receive_report(), pair.connection.receive_report()
    assert report.result.gradient is None
    assert np.array_equal(whole.result.gradient, G)


@pytest.mark.parametrize("kind", [TicketKind.EVALUATION, 0, 255])
@pytest.mark.parametrize("shared", [False, True])
def test_only_results_for_gradients_carry_one(ends: MakeEnds, shared: bool, kind: int) -> None:
    """Whatever a worker has written or sent; what was sent in vain makes room for the next."""
    pair = ends(SIZE, shared=shared)
    ticket = TICKET._replace(kind=kind)
    pair.worker.send(_result(ticket=ticket) if shared else _result(_gradient(), ticket))
    report = pair.connection.receive_report()
    assert report.result.gradient is None
    assert len(pair.buffers._free) == (0 if shared else 1)


def test_a_shared_gradient_is_lent(ends: MakeEnds) -> None:
    """It is the worker's own memory, and cannot be written to by mistake."""
    pair = ends(SIZE, shared=True)
    pair.worker.send(_result())
    report = pair.connection.receive_report()
    assert report.result.gradient is not None
    pair.memory[:] = 7
    assert report.result.gradient.sum() == 7 * SIZE
    assert not report.result.gradient.flags.writeable
    assert pair.memory.flags.writeable


@pytest.mark.parametrize("frame", [_result(np.ones(1)), Report.part(8 * SIZE - 8, 8).encode()], ids=["result", "part"])
def test_a_worker_that_shares_memory_sends_no_numbers(ends: MakeEnds, frame: bytes) -> None:
    """There is one way for a gradient on each connection."""
    pair = ends(SIZE, shared=True)
    pair.worker.send(frame)
    with pytest.raises(WorkerConnectionError):
        pair.connection.receive_report()


def test_a_huge_gradient_is_received_as_it_comes(ends: MakeEnds) -> None:
    """8 MB through a socket that holds some kilobytes: `report` returns whenever there is nothing more."""
    pair, gradient = ends(1_000_000, socket_bytes=8192), _gradient(1_000_000)
    unsent, report = memoryview(_part(gradient, 500_000, 1_000_000) + _result(gradient[:500_000])), None
    while unsent:
        assert report is None
        unsent = unsent[pair.worker.send(unsent) :]
        report = pair.connection.receive_report()
    assert np.array_equal(report.result.gradient, gradient)


def test_a_worker_that_goes_breaks_its_connection(ends: MakeEnds) -> None:
    """In the middle of a gradient or between two results; what it began to send makes room for others."""
    pair, gradient = ends(SIZE), _gradient()
    pair.worker.send(_part(gradient, 900, 1000))
    assert pair.connection.receive_report() is None
    pair.worker.close()
    with pytest.raises(WorkerConnectionError, match="closed"):
        pair.connection.receive_report()
    pair.connection.close()
    pair.connection.close()
    assert len(pair.buffers._free) == 1
