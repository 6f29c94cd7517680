"""What moving vectors over an inline line costs, measured with both of its ends in processes of this host."""

import select
import socket
import time
from typing import IO

import numpy as np

from benchmarks.scale.forms import NUMBER_BYTES
from benchmarks.scale.processes import started
from benchmarks.scale.quantities import Curve
from benchmarks.scale.quiet import quiet
from service.parameter_server.shard.reduction import Buffers
from service.parameter_server.transport.worker_connection import WorkerConnection
from workers.transport.tickets import Ticket, TicketKind

__all__ = ["LineCurves", "Trip", "line_curves", "trip"]

LineCurves = dict[str, Curve]
Trip = tuple[float, float, float]  # CPU seconds for sending, CPU seconds for receiving, seconds of it all

_SIZES = (10**5, 10**6, 10**7)
_ALL_BYTES = 1_000_000_000
_LEAST_TRIPS = 8


def line_curves(log: IO[str]) -> LineCurves:
    """Seconds per byte of sending, receiving and the loopback; the names are those of `Parts`.

    Args:
        log: For what the other process says on stderr.
    """
    fixed = trip(1, 200, log)
    sizes = [NUMBER_BYTES * size for size in _SIZES]
    send, receive, whole = zip(*(_beyond(fixed, size, log) for size in _SIZES), strict=True)
    rates = {
        "send": [seconds / count for seconds, count in zip(send, sizes, strict=True)],
        "receive": [seconds / count for seconds, count in zip(receive, sizes, strict=True)],
        "loopback": [seconds / (2 * count) for seconds, count in zip(whole, sizes, strict=True)],
    }
    return {name: Curve(tuple(map(float, sizes)), tuple(rate)) for name, rate in rates.items()}


def _beyond(fixed: Trip, size: int, log: IO[str]) -> Trip:
    """What a trip with so many numbers takes beyond a trip with one."""
    send, receive, whole = trip(size, max(_LEAST_TRIPS, _ALL_BYTES // (NUMBER_BYTES * size)), log)
    return send - fixed[0], receive - fixed[1], whole - fixed[2]


def trip(size: int, trips: int, log: IO[str]) -> Trip:
    """Weights of so many numbers there and a gradient back, so often; the first trip warms up."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        started(["line", str(listener.getsockname()[1]), str(size)], log),
    ):
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffers = Buffers(size, np.float32)
        line = WorkerConnection(connection, np.zeros(size, np.float32), buffers)
        taken = [_go(line, buffers, version) for version in range(trips + 1)]
        line.close()
    send, receive, whole = zip(*taken[1:], strict=True)
    return quiet(send), quiet(receive), quiet(whole)


def _go(line: WorkerConnection, buffers: Buffers, version: int) -> Trip:
    """One trip, driven as the engine does it."""
    begun, sending, receiving = time.perf_counter(), 0.0, 0.0
    with select.epoll() as epoll:
        epoll.register(line.fileno(), select.EPOLLIN | select.EPOLLOUT)
        mark = time.thread_time()
        line.send([Ticket(version, TicketKind.GRADIENT, 0)], [], version)
        sending += time.thread_time() - mark
        while True:
            epoll.modify(line.fileno(), select.EPOLLIN | (select.EPOLLOUT if line.unsent else 0))
            epoll.poll()
            mark = time.thread_time()
            if line.unsent:
                line.flush()
                sending += time.thread_time() - mark
            elif report := line.report():
                receiving += time.thread_time() - mark
                buffers.give(report.result.gradient)
                return sending, receiving, time.perf_counter() - begun
            else:
                receiving += time.thread_time() - mark
