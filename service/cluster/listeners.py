"""Who listens at an address."""

import os
import socket
from pathlib import Path
from typing import Final

from service.cluster.errors import ClusterError
from workers.peers import peer_of

__all__ = ["process_at", "require_listener", "require_process"]

_CONNECT_SECONDS: Final = 5.0


def require_listener(address: str) -> None:
    """Returns if somebody listens where a Ray cluster is said to be; Ray itself would try for minutes.

    Raises:
        ClusterError: Nobody does, or it is no address.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ClusterError(f"{address!r} is not the address of a Ray cluster: give HOST:PORT, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"no Ray cluster answers at {address}: start one with `ray start --head` ({error})"
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
