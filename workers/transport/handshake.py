"""Handshake: a worker opens its connection to the parameter server, and either end checks who the other one is."""

import logging
import os
import socket
from struct import Struct
from typing import Any, Final, NamedTuple

import numpy as np

from nablad.v1 import parameter_server_pb2 as ps_pb
from workers.mathematics.parameters import ParameterLayout
from workers.transport.run_memory import (
    BELL_BYTES,
    CONTROL_BYTES,
    RunEnd,
    RunMemory,
    WorkerMemory,
    worker_memory_bytes,
)
from workers.transport.server_connection import ServerConnection, ServerConnectionError
from workers.transport.shared_memory import SharedMemory, vectors_bytes

__all__ = ["HANDSHAKE", "Peer", "connect_to_server", "peer_of", "require_same_user"]

HANDSHAKE: Final = b"+"
"""Sent by either end when it has done its part of the handshake."""

_OPEN_SECONDS: Final = 10.0
_CREDENTIALS: Final = Struct("3i")

_log = logging.getLogger(__name__)


class Peer(NamedTuple):
    """The process at the other end of a Unix socket, as the kernel knows it.

    Attributes:
        pid: Process id; 0 if the process cannot be seen from here.
        user: Effective user id when the connection was made.
        group: Effective group id when the connection was made.
    """

    pid: int
    user: int
    group: int


def peer_of(connection: socket.socket) -> Peer:
    """Returns the process at the other end of a connected Unix socket.

    Raises:
        OSError: The socket is not connected.
    """
    return Peer._make(
        _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    )


def require_same_user(connection: socket.socket) -> None:
    """Checks that the other end of a connected Unix socket is a process of this user.

    Raises:
        ValueError: It is another user's process.
        OSError: The socket is not connected.
    """
    user = peer_of(connection).user
    if user != os.geteuid():
        raise ValueError(f"memory is shared with user {os.geteuid()} only, but user {user} is at the other end")


def connect_to_server(joined: ps_pb.JoinResponse, layout: ParameterLayout, dtype: np.dtype[Any]) -> ServerConnection:
    """Opens the connection that Join offered; prefers shared memory where it is offered and possible.

    Raises:
        ServerConnectionError: No offered connection could be opened.
    """
    if joined.HasField("shared_connection"):
        try:
            return _open_shared(joined, layout.size, dtype)
        except (OSError, ValueError) as error:
            if not joined.HasField("inline_connection"):
                raise ServerConnectionError(f"memory cannot be shared with the parameter server: {error}") from error
            _log.info("memory cannot be shared with the parameter server, vectors are sent inline: %s", error)
    try:
        return _open_inline(joined, layout, dtype)
    except (OSError, ValueError) as error:
        raise ServerConnectionError(
            f"the parameter server's port for weights and gradients cannot be reached: {error}"
        ) from error


def _open_shared(joined: ps_pb.JoinResponse, size: int, dtype: np.dtype[Any]) -> ServerConnection:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_OPEN_SECONDS)
        connection.connect(b"\0" + joined.shared_connection.socket_name)
        # Another user may take a name in the abstract namespace once its first owner is gone.
        require_same_user(connection)
        connection.sendall(joined.token)
        slots, buffers = max(joined.shared_connection.slots, 1), max(joined.shared_connection.weight_buffers, 1)
        sizes = vectors_bytes(dtype, size, buffers), worker_memory_bytes(dtype, size, slots)
        weights, gradient, run_memory = _receive_memory(connection, *sizes)
        gradient.answer_challenge()
        connection.sendall(HANDSHAKE)
        _require_handshake(connection)
    except BaseException:
        connection.close()
        raise
    results = WorkerMemory(gradient, dtype, size, slots)
    return ServerConnection(
        connection,
        weights.vectors(dtype, size, buffers),
        results.gradients[0],
        run_end=RunEnd(run_memory, results) if run_memory else None,
    )


def _receive_memory(
    connection: socket.socket, weights_bytes: int, gradient_bytes: int
) -> tuple[SharedMemory, SharedMemory, RunMemory | None]:
    """Receives the memory of the weights, of the results of this worker, and of runs, where there can be any."""
    _, files, _, _ = socket.recv_fds(connection, len(HANDSHAKE), 4, socket.MSG_CMSG_CLOEXEC)
    try:
        if len(files) not in (2, 4):
            raise ValueError("the parameter server did not accept this worker")
        weights = SharedMemory(files.pop(0), weights_bytes, writable=False)
        gradient = SharedMemory(files.pop(0), gradient_bytes, writable=True)
        if not files:
            return weights, gradient, None
        control = SharedMemory(files.pop(0), CONTROL_BYTES, writable=False)
        return weights, gradient, RunMemory(control, SharedMemory(files.pop(0), BELL_BYTES, writable=True))
    finally:
        for file in files:  # that no SharedMemory owns
            os.close(file)


def _open_inline(joined: ps_pb.JoinResponse, layout: ParameterLayout, dtype: np.dtype[Any]) -> ServerConnection:
    address = joined.inline_connection.host, joined.inline_connection.port
    connection = socket.create_connection(address, _OPEN_SECONDS)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(joined.token)
        _require_handshake(connection)
    except BaseException:
        connection.close()
        raise
    return ServerConnection(connection, [np.zeros(layout.size, dtype)], np.empty(layout.size, dtype), layout.starts)


def _require_handshake(connection: socket.socket) -> None:
    if connection.recv(len(HANDSHAKE)) != HANDSHAKE:
        raise ValueError("the parameter server did not accept this worker")
    connection.settimeout(None)
