"""Which connections the HTTP server keeps when more come than it has room for."""

from collections import Counter
from collections.abc import Hashable
from ipaddress import IPv6Address, ip_address
from threading import Lock
from typing import Generic, TypeVar

__all__ = ["Connections", "peer_of"]

_Connection = TypeVar("_Connection", bound=Hashable)

# A host of IPv6 usually has a network of this size to itself.
_PREFIX_BITS = 64


def peer_of(host: str) -> str:
    """The party behind an address: an address of IPv4, or a network of IPv6."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:  # no address of the internet
        return host
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return f"{IPv6Address(int(address) >> 128 - _PREFIX_BITS << 128 - _PREFIX_BITS)}/{_PREFIX_BITS}"


class Connections(Generic[_Connection]):
    """The open connections of a server that answers one request on each; may be used by several threads.

    A connection waits for its request, and is answered then. A scraper sends its request with the first packet. So
    those make room that have waited for theirs the longest, first of the peer that has too many, else of the peer that
    has most; and never one that is answered.
    """

    def __init__(self, most: int, most_of_peer: int) -> None:
        """None is open.

        Args:
            most: How many may be open.
            most_of_peer: How many of them one peer may have.
        """
        self._most = most
        self._most_of_peer = most_of_peer
        self._lock = Lock()
        self._waiting: dict[_Connection, str] = {}  # the peer of each, those first that have waited longest
        self._answered: dict[_Connection, str] = {}
        self._counts: Counter[str] = Counter()  # by peer

    def admit(self, connection: _Connection, peer: str) -> _Connection | None:
        """Takes a new connection in, if there is room or another one can make room.

        Returns:
            The connection that is to be closed for it: None if none has to be, the new one itself if none can be.
        """
        with self._lock:
            if self._counts[peer] >= self._most_of_peer:
                closed = self._longest_waiting(peer)
            elif self._counts.total() >= self._most:
                closed = self._longest_waiting(self._busiest_peer())
            else:
                closed = None
            if closed is None and self._is_full(peer):
                return connection
            if closed is not None:
                self._remove(closed)
            self._waiting[connection] = peer
            self._counts[peer] += 1
            return closed

    def begin_answer(self, connection: _Connection) -> bool:
        """Notes that the request of a connection is there; false if the connection had to make room before."""
        with self._lock:
            if connection not in self._waiting:
                return False
            self._answered[connection] = self._waiting.pop(connection)
            return True

    def remove(self, connection: _Connection) -> None:
        """Forgets a connection that is closed, if it was not forgotten before."""
        with self._lock:
            self._remove(connection)

    def _is_full(self, peer: str) -> bool:
        return self._counts[peer] >= self._most_of_peer or self._counts.total() >= self._most

    def _longest_waiting(self, peer: str | None) -> _Connection | None:
        return next((connection for connection, of in self._waiting.items() if of == peer), None)

    def _busiest_peer(self) -> str | None:
        """Of those with a connection that waits; of several the one whose connection has waited longest."""
        return max(dict.fromkeys(self._waiting.values()), key=self._counts.__getitem__, default=None)

    def _remove(self, connection: _Connection) -> None:
        peer = self._waiting.pop(connection, None) or self._answered.pop(connection, None)
        if peer is not None:
            self._counts[peer] -= 1
            if not self._counts[peer]:
                del self._counts[peer]
