"""The other ends of what is measured: processes that only move bytes, with the project's own regions and lines."""

import socket
import sys
import time

import numpy as np

from workers.transport.frames import FIGURES
from workers.transport.server_connection import ServerConnection
from workers.transport.shared_memory import SharedMemory
from workers.transport.tickets import Result

__all__ = ["VALUE", "read_and_write", "receive_and_send"]

VALUE = 1e-3
"""What gradients are filled with."""


def read_and_write(weights: str, gradients: str, size: str) -> None:
    """Has regions in common with who started it: the neighbour of a parameter server.

    On each line of its input it reads the weights, writes the gradients, and says how many seconds the reading took.

    Args:
        weights: The open file of the region to read.
        gradients: Those of the regions to write, separated by commas.
        size: Numbers in each.
    """
    numbers = int(size)
    source = SharedMemory(int(weights), 4 * numbers, writable=False).vector(np.float32, numbers)
    files = map(int, gradients.split(","))
    targets = [SharedMemory(file, 4 * numbers, writable=True).vector(np.float32, numbers) for file in files]
    for _ in sys.stdin:
        begun = time.perf_counter()
        np.dot(source, source)
        taken = time.perf_counter() - begun
        for target in targets:
            target.fill(VALUE)
        print(taken, flush=True)


def receive_and_send(port: str, size: str) -> None:
    """Is the worker's end of an inline line: answers every order with a gradient, until the line is closed."""
    connection = socket.create_connection(("127.0.0.1", int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    vectors = np.zeros((2, int(size)), np.float32)
    with ServerConnection(connection, vectors[0], vectors[1], [0]) as line:
        while order := line.next_order():
            line.begin()
            line.send(Result(order.tickets[0], order.version, 0.0, 1, 0, line.gradient), 1, [0.0] * len(FIGURES))
