"""Who is at the other end of a Unix socket, as the kernel says."""

import os
import socket
from struct import Struct
from typing import Final, NamedTuple

__all__ = ["Peer", "peer_of", "require_same_user"]

_CREDENTIALS: Final = Struct("3i")


class Peer(NamedTuple):
    """The process that connected, or that listened when this one connected.

    Attributes:
        pid: 0 if it cannot be seen from here.
        user: Its effective user id then.
        group: Its effective group id then.
    """

    pid: int
    user: int
    group: int


def peer_of(connection: socket.socket) -> Peer:
    """The other end of a connected Unix socket.

    Raises:
        OSError: There is none.
    """
    return Peer._make(
        _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    )


def require_same_user(connection: socket.socket) -> None:
    """Returns if the other end of a connected Unix socket is a process of this user.

    Raises:
        ValueError: It is another user's.
        OSError: There is none.
    """
    user = peer_of(connection).user
    if user != os.geteuid():
        raise ValueError(f"memory is shared with user {os.geteuid()} only, but user {user} is at the other end")
