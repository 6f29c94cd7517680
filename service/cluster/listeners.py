"""Who listens at an address."""

import socket
import struct
from typing import Final

from service.cluster.errors import ClusterError

__all__ = ["process_at", "require_listener"]

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
        except OSError:
            return None
        pid, _, _ = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return pid or None
