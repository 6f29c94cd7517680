"""Descriptors: how many this process may have, and how many of them the connections of clients take."""

import logging
import resource
from typing import Final

__all__ = ["connection_options", "most_connections", "raise_descriptor_limit"]

_log = logging.getLogger(__name__)

# Enough for every client that one service can serve; systems allow a process millions, which helps nobody.
_WANTED: Final = 65536
# For what the process itself has open: files, stores, pipes, and the connections of scrapers.
_RESERVED: Final = 512
_FEWEST_CONNECTIONS: Final = 64
# What connects and says nothing is let go after so long, and a connection without a call a while later. Clients connect
# anew with their next call, and do not notice.
_HANDSHAKE_SECONDS: Final = 10
_IDLE_SECONDS: Final = 120


def raise_descriptor_limit() -> int:
    """Raises the limit of descriptors of this process, and of those that it starts, as far as is allowed and of use.

    Returns:
        The limit from now on.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _WANTED if hard == resource.RLIM_INFINITY else min(hard, _WANTED)
    if soft == resource.RLIM_INFINITY or soft >= allowed:
        return _limit(soft)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    except (OSError, ValueError) as error:
        _log.warning("the limit of descriptors stays at %d: %s", soft, error)
        return soft
    return allowed


def most_connections(limit: int) -> int:
    """How many connections a server can have on each address that it listens at, of which localhost is two.

    Args:
        limit: Of descriptors.
    """
    return max((limit - _RESERVED) // 2, _FEWEST_CONNECTIONS)


def connection_options(most: int | None = None) -> tuple[tuple[str, int], ...]:
    """Channel arguments of gRPC's for a server whose clients cannot take all descriptors of this process.

    One connection too many is closed at once, so that its client is told and does not wait.

    Args:
        most: Connections that are allowed, as far as there are descriptors for them; None: as many as those allow.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = most_connections(_limit(soft))
    return (
        ("grpc.max_allowed_incoming_connections", possible if most is None else min(possible, most)),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_SECONDS * 1000),
        ("grpc.max_connection_idle_ms", _IDLE_SECONDS * 1000),
    )


def _limit(soft: int) -> int:
    return _WANTED if soft == resource.RLIM_INFINITY else soft
