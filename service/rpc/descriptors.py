"""File descriptors: the limit of this process, and the number that connections of clients may take."""

import logging
import resource
from typing import Final

__all__ = ["connection_options", "most_connections", "raise_descriptor_limit"]

_log = logging.getLogger(__name__)

# Enough for every client that one service can serve. Systems may allow millions, which are of no use.
_WANTED: Final = 65536
# Descriptors of the process itself: files, stores, pipes, and the connections of scrapers.
_RESERVED: Final = 512
_FEWEST_CONNECTIONS: Final = 64
# A connection without a handshake is closed first, one without a call later. A client connects anew with its next call
# and does not notice.
_HANDSHAKE_SECONDS: Final = 10
_IDLE_SECONDS: Final = 120


def raise_descriptor_limit() -> int:
    """Raises the limit of descriptors of this process and its children, as far as is allowed and of use.

    Returns:
        The new limit.
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
    """Returns how many connections a server can have on each of its addresses; localhost may be two of them.

    Args:
        limit: Limit of descriptors.
    """
    return max((limit - _RESERVED) // 2, _FEWEST_CONNECTIONS)


def connection_options(most: int | None = None) -> tuple[tuple[str, int], ...]:
    """Returns gRPC channel arguments of a server whose clients cannot take all descriptors of this process.

    A surplus connection is closed at once, so that its client gets an error and does not wait.

    Args:
        most: Largest number of connections, within the limit of descriptors; None for that limit.
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
