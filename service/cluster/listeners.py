"""Checks of listeners: the process at an address, and the addresses at which this host can listen."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import grpc

from service.cluster.errors import ClusterError
from workers.transport.handshake import peer_of

__all__ = ["process_at", "require_head", "require_listener", "require_loopback", "require_process"]

_CONNECT_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 5.0
_LOOPBACK: Final = "127.0.0.1"


def require_listener(address: str) -> None:
    """Checks that a process listens at the address of a Ray cluster, because Ray itself would try for minutes.

    Raises:
        ClusterError: No process listens there, or the text is no address.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ClusterError(f"{address!r} is not the address of a Ray cluster: give HOST:PORT, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"no Ray cluster answers at {address}: start one with `ray start --head` ({error})"
        ) from error


def require_head(address: str, call: Callable[..., Any], seconds: float = _ANSWER_SECONDS) -> None:
    """Checks that the head of a Ray cluster answers, because Ray itself would call any other server for two minutes.

    Args:
        address: Address at which a process listens.
        call: gRPC call that every head answers; takes its ``timeout`` in seconds.
        seconds: Longest time that the answer may take.

    Raises:
        ClusterError: Another server answers there, or none at all.
    """
    try:
        call(timeout=seconds)
    except grpc.RpcError as error:
        # A head rejects calls without its token; Ray's own message about that is good.
        if error.code() not in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            raise ClusterError(
                f"what listens at {address} is not the head of a Ray cluster ({error.code().name}: {error.details()}): "
                "give the address that `ray start --head` printed"
            ) from error


def require_loopback(address: str = _LOOPBACK) -> None:
    """Checks that this host has the address of an embedded Ray, because Ray itself would wait for half a minute.

    Raises:
        ClusterError: The host has no IPv4.
    """
    try:
        with socket.socket() as listener:
            listener.bind((address, 0))
    except OSError as error:
        raise ClusterError(
            f"this host has no {address} ({error.strerror}), and Ray needs IPv4: give the loopback interface "
            f"one (`ip address add {address}/8 dev lo`), or use a Ray cluster elsewhere with --ray"
        ) from error


def process_at(path: str) -> int | None:
    """Returns the id of the process that listens at a Unix socket; None if it is not visible from here."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
            return peer_of(connection).pid or None
        except OSError:
            return None


def require_process(path: Path, pid: int) -> None:
    """Checks that a process of this user listens at a Unix socket.

    Args:
        path: The socket.
        pid: Id of the expected process.

    Raises:
        ClusterError: Another process listens there, or none.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_CONNECT_SECONDS)
        try:
            connection.connect(str(path))
            found = peer_of(connection)
        except OSError as error:
            raise ClusterError(f"the process that speaks to Ray cannot be reached at {path}: {error}") from error
    if (found.pid, found.user) != (pid, os.geteuid()):
        raise ClusterError(
            f"process {found.pid} of user {found.user} listens at {path} in place of the process that speaks to Ray: "
            "somebody else has put it there; set TMPDIR to a folder that nobody else may write to"
        )
