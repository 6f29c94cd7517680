"""The limit of messages between processes of one host: the bytes of the same steps, over plain sockets.

The weights go down to every process and a gradient comes back from each, over TCP on the loopback interface; nothing
is computed, and nothing else is sent. All processes have answered before the next step begins.
"""

import multiprocessing
import socket
import threading
import time

from benchmarks.figures import Measurement
from benchmarks.peers.task import Task

__all__ = ["train"]

_CONNECT_SECONDS = 60.0


def train(task: Task) -> Measurement:
    """Sends from this process to others, which answer."""
    plan, size = task.plan(), task.first_parameters().nbytes
    spawn = multiprocessing.get_context("spawn")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(_CONNECT_SECONDS)
        others = [
            spawn.Process(target=_answer, args=(listener.getsockname(), size, plan.steps), daemon=True)
            for _ in range(task.processes)
        ]
        for other in others:
            other.start()
        connections = [listener.accept()[0] for _ in others]
    ends_s = _converse(connections, size, plan.steps)
    for other in others:
        other.join()
    epochs = range(0, plan.steps, plan.steps_per_epoch)
    seconds = [ends_s[first + plan.steps_per_epoch] - ends_s[first] for first in epochs]
    return Measurement([task.rows / of_epoch for of_epoch in seconds])


def _converse(connections: list[socket.socket], size: int, steps: int) -> list[float]:
    """The time when the first step began, and when each ended."""
    ends_s: list[float] = []
    barrier = threading.Barrier(len(connections), action=lambda: ends_s.append(time.perf_counter()))
    threads = [threading.Thread(target=_serve, args=(connection, size, steps, barrier)) for connection in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends_s


def _serve(connection: socket.socket, size: int, steps: int, barrier: threading.Barrier) -> None:
    weights, gradient = bytes(size), bytearray(size)
    with connection:
        _send_at_once(connection)
        barrier.wait()
        for _ in range(steps):
            connection.sendall(weights)
            _receive(connection, gradient)
            barrier.wait()


def _answer(address: tuple[str, int], size: int, steps: int) -> None:
    weights, gradient = bytearray(size), bytes(size)
    with socket.create_connection(address) as connection:
        _send_at_once(connection)
        for _ in range(steps):
            _receive(connection, weights)
            connection.sendall(gradient)


def _send_at_once(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _receive(connection: socket.socket, buffer: bytearray) -> None:
    """Fills the buffer."""
    rest = memoryview(buffer)
    while rest:
        received = connection.recv_into(rest)
        if not received:
            raise ConnectionError(f"The other process ended {len(rest)} bytes before the end of a message.")
        rest = rest[received:]
