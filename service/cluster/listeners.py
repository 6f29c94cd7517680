"""Who listens at an address, and where this host can listen."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import grpc

from service.cluster.errors import ClusterError
from workers.transport.peers import peer_of

__all__ = ["process_at", "require_head", "require_listener", "require_loopback", "require_process"]

_CONNECT_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 5.0
_LOOPBACK: Final = "127.0.0.1"


def require_listener(address: str) -> None:
    """Returns if somebody listens where a Ray cluster is said to be; Ray itself would try for minutes.

    Raises:
        ClusterError: Nobody does, or it is no address.
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


def require_head(address: str, ask: Callable[..., Any], seconds: float = _ANSWER_SECONDS) -> None:
    """Returns if the head of a Ray cluster answers at an address; Ray itself would ask anything else for two minutes.

    Args:
        address: Of somebody who listens.
        ask: A call of gRPC that every head answers; takes its ``timeout`` in seconds.
        seconds: That an answer may take.

    Raises:
        ClusterError: Something else answers there, or nothing at all.
    """
    try:
        ask(timeout=seconds)
    except grpc.RpcError as error:
        # A head that asks for a token does not give it away who has none: Ray's own words for that are good.
        if error.code() not in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            raise ClusterError(
                f"what listens at {address} is not the head of a Ray cluster ({error.code().name}: {error.details()}): "
                "give the address that `ray start --head` printed"
            ) from error


def require_loopback(address: str = _LOOPBACK) -> None:
    """Returns if this host has the address at which an embedded Ray listens; Ray itself would wait for half a minute.

    Raises:
        ClusterError: It has none: there is no IPv4.
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
    """The id of the process that listens at a Unix socket; None if it cannot be seen from here."""
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(path)
            return peer_of(line).pid or None
        except OSError:
            return None


def require_process(path: Path, pid: int) -> None:
    """Returns if this process listens at a Unix socket, and runs as this user.

    Raises:
        ClusterError: It does not.
    """
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(_CONNECT_SECONDS)
        try:
            line.connect(str(path))
            found = peer_of(line)
        except OSError as error:
            raise ClusterError(f"the process that speaks to Ray cannot be reached at {path}: {error}") from error
    if (found.pid, found.user) != (pid, os.geteuid()):
        raise ClusterError(
            f"process {found.pid} of user {found.user} listens at {path} in place of the process that speaks to Ray: "
            "somebody else has put it there; set TMPDIR to a folder that nobody else may write to"
        )
