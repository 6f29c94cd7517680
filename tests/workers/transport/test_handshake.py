"""Handshakes: with shared memory where that is offered and possible, else without, and never with a leak."""

import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from nablad.v1 import parameter_server_pb2 as ps_pb
from workers.mathematics.parameters import ParameterLayout
from workers.transport import handshake as handshake_module
from workers.transport.frames import encode_order
from workers.transport.handshake import HANDSHAKE, connect_to_server
from workers.transport.run_memory import worker_memory_bytes
from workers.transport.server_connection import ServerConnectionError
from workers.transport.shared_memory import SharedMemory

TOKEN = secrets.token_bytes(32)
LAYOUT = ParameterLayout((4, 3, 2), bias=True)
DTYPE = np.dtype(np.float32)
WEIGHTS = np.arange(LAYOUT.size, dtype=DTYPE)
BYTES = WEIGHTS.nbytes
NO_SHARING = "memory cannot be shared with the parameter server: "
NO_PORT = "the parameter server's port for weights and gradients cannot be reached: "

Receive = Callable[[socket.socket, int], bytes]
Greet = Callable[[socket.socket], None]


class _Listeners:
    """A parameter server's sockets; each lets one worker in, on a thread."""

    def __init__(self, receive: Receive) -> None:
        self.joined = ps_pb.JoinResponse(token=TOKEN)
        self.accepted: list[socket.socket] = []
        self._receive = receive
        self._listeners: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def offer_shared(self, greet: Greet) -> None:
        name = f"nablad-test-{secrets.token_hex(8)}".encode()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(b"\0" + name)
        self.joined.shared_connection.socket_name = name
        self._start(listener, greet)

    def offer_inline(self, greet: Greet) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.joined.inline_connection.host, self.joined.inline_connection.port = listener.getsockname()
        self._start(listener, greet)

    def close(self) -> None:
        for each in (*self._listeners, *self.accepted):
            each.close()

    def join(self) -> None:
        """Returns when all workers that came have been greeted."""
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def _start(self, listener: socket.socket, greet: Greet) -> None:
        listener.settimeout(20)
        listener.listen()
        self._listeners.append(listener)

        def let_in() -> None:
            connection, _ = listener.accept()
            connection.settimeout(20)
            self.accepted.append(connection)
            assert self._receive(connection, len(TOKEN)) == TOKEN
            greet(connection)

        self._threads.append(threading.Thread(target=let_in))
        self._threads[-1].start()


@pytest.fixture
def listeners(receive: Receive, no_file_stays_open: None) -> Iterator[_Listeners]:
    """A parameter server that offers nothing yet."""
    listeners = _Listeners(receive)
    yield listeners
    listeners.join()
    listeners.close()


def _hand_over(connection: socket.socket, *files: Any) -> None:
    socket.send_fds(connection, [HANDSHAKE], [file.fileno() for file in files])


def _memory(name: str, size: int | None = None) -> SharedMemory:
    needed = worker_memory_bytes(DTYPE, LAYOUT.size, 1) if name == "gradient" else BYTES
    return SharedMemory.create(name, size or needed, others_may_write=name == "gradient")


def _welcome(connection: socket.socket) -> None:
    connection.sendall(HANDSHAKE)


def test_memory_is_shared_where_that_is_offered(listeners: _Listeners, receive: Receive) -> None:
    """The worker sees the weights change, its gradient is seen as it is written, and it cannot write the weights."""
    weights, gradient = _memory("weights"), _memory("gradient")
    answer = gradient.write_challenge()
    answered: list[bool] = []

    def greet(connection: socket.socket) -> None:
        _hand_over(connection, weights, gradient)
        assert receive(connection, 1) == HANDSHAKE
        answered.append(gradient.has_answer(answer))
        connection.sendall(HANDSHAKE)

    listeners.offer_shared(greet)
    listeners.joined.inline_connection.port = 1  # nobody is there
    with connect_to_server(listeners.joined, LAYOUT, DTYPE) as connection:
        assert connection.shared
        assert answered == [True]
        weights.vector(DTYPE, LAYOUT.size)[:] = WEIGHTS
        np.testing.assert_array_equal(connection.weights, WEIGHTS)
        assert not connection.weights.flags.writeable
        connection.gradient[:] = -WEIGHTS
        np.testing.assert_array_equal(gradient.vector(DTYPE, LAYOUT.size), -WEIGHTS)


def _close(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def _one_memory(connection: socket.socket) -> None:
    _hand_over(connection, _memory("weights"))


def _small_weights(connection: socket.socket) -> None:
    _hand_over(connection, _memory("weights", BYTES - 1), _memory("gradient"))


def _small_gradient(connection: socket.socket) -> None:
    _hand_over(connection, _memory("weights"), _memory("gradient", BYTES - 1))


def _gradient_to_read(connection: socket.socket) -> None:
    _hand_over(connection, _memory("weights"), _memory("weights", 10 * BYTES))


def _no_memory(connection: socket.socket) -> None:
    read, write = os.pipe()
    socket.send_fds(connection, [HANDSHAKE], [read, write])
    os.close(read)
    os.close(write)


def _refuse_answer(connection: socket.socket) -> None:
    _hand_over(connection, _memory("weights"), _memory("gradient"))
    connection.recv(1)
    connection.shutdown(socket.SHUT_RDWR)


IMPOSSIBLE = {
    _close: "the parameter server did not accept this worker",
    _welcome: "the parameter server did not accept this worker",  # without memories
    _one_memory: "the parameter server did not accept this worker",
    _small_weights: "length",
    _small_gradient: "length",
    _gradient_to_read: "not permitted",
    _no_memory: "No such device",
    _refuse_answer: "the parameter server did not accept this worker",
}


@pytest.mark.parametrize("greet", IMPOSSIBLE, ids=lambda greet: greet.__name__.strip("_"))
def test_where_memory_cannot_be_shared_it_goes_inline(listeners: _Listeners, greet: Greet) -> None:
    """Whatever the reason, the connection works all the same, and what was handed over is closed."""
    listeners.offer_shared(greet)
    listeners.offer_inline(_welcome)
    with connect_to_server(listeners.joined, LAYOUT, DTYPE) as connection:
        listeners.join()
        assert not connection.shared
        listeners.accepted[-1].sendall(encode_order([], [], 1, BYTES) + WEIGHTS.tobytes())
        assert connection.next_order()
        np.testing.assert_array_equal(connection.weights, WEIGHTS)


@pytest.mark.parametrize("greet", IMPOSSIBLE, ids=lambda greet: greet.__name__.strip("_"))
def test_where_memory_has_to_be_shared_and_cannot_the_reason_is_said(listeners: _Listeners, greet: Greet) -> None:
    """A spec that wants shared memory gets no connection without."""
    listeners.offer_shared(greet)
    with pytest.raises(ServerConnectionError, match=NO_SHARING + f".*{IMPOSSIBLE[greet]}"):
        connect_to_server(listeners.joined, LAYOUT, DTYPE)


def test_a_name_that_does_not_answer_is_another_container_s(listeners: _Listeners) -> None:
    """Two hosts may look alike and yet see other sockets: then it goes inline, if it may."""
    listeners.joined.shared_connection.socket_name = b"nablad-test-nobody"
    with pytest.raises(ServerConnectionError, match=NO_SHARING + ".*refused"):
        connect_to_server(listeners.joined, LAYOUT, DTYPE)
    listeners.offer_inline(_welcome)
    with connect_to_server(listeners.joined, LAYOUT, DTYPE) as connection:
        assert not connection.shared


def test_a_name_that_another_user_has_taken_is_told_nothing(
    listeners: _Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a parameter server has ended and somebody listens in its place: the worker's token stays its own."""
    name, own = f"nablad-test-{secrets.token_hex(8)}".encode(), os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    with socket.socket(socket.AF_UNIX) as impostor:
        impostor.bind(b"\0" + name)
        impostor.listen()
        impostor.settimeout(20)
        listeners.joined.shared_connection.socket_name = name
        with pytest.raises(ServerConnectionError, match=f"{NO_SHARING}.*user {own} is at the other end"):
            connect_to_server(listeners.joined, LAYOUT, DTYPE)
        connection, _ = impostor.accept()
        with connection:
            assert connection.recv(1) == b""


def test_an_inline_connection_has_vectors_of_its_own(listeners: _Listeners) -> None:
    """Of the job's type and the network's size; and an order may take as long as it takes."""
    listeners.offer_inline(_welcome)
    with connect_to_server(listeners.joined, LAYOUT, np.dtype(np.float64)) as connection:
        for vector in (connection.weights, connection.gradient):
            assert (vector.shape, vector.dtype) == ((LAYOUT.size,), np.float64)
            assert vector.flags.writeable
        assert connection._connection.gettimeout() is None


def test_a_port_that_nobody_listens_on_is_said(listeners: _Listeners) -> None:
    """It is the way between the hosts that is meant, and the system's reason."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        listeners.joined.inline_connection.host, listeners.joined.inline_connection.port = closed.getsockname()
    with pytest.raises(ServerConnectionError, match=NO_PORT + ".*refused"):
        connect_to_server(listeners.joined, LAYOUT, DTYPE)


def test_a_parameter_server_that_turns_the_worker_away_is_said(listeners: _Listeners) -> None:
    """As when the token is of a worker that has gone already."""
    listeners.offer_inline(_close)
    with pytest.raises(ServerConnectionError, match=NO_PORT + "the parameter server did not accept this worker"):
        connect_to_server(listeners.joined, LAYOUT, DTYPE)


@pytest.mark.parametrize("shared", [True, False])
def test_a_parameter_server_that_says_nothing_is_not_waited_for(
    listeners: _Listeners, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """For some seconds only."""
    monkeypatch.setattr(handshake_module, "_OPEN_SECONDS", 0.01)
    (listeners.offer_shared if shared else listeners.offer_inline)(lambda _: None)
    with pytest.raises(ServerConnectionError, match=(NO_SHARING if shared else NO_PORT) + "timed out"):
        connect_to_server(listeners.joined, LAYOUT, DTYPE)
