"""HTTP server that answers one request per connection, with bounds on time, bytes and connections."""

import io
import logging
import struct
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv6Address, ip_address
from socket import SHUT_RDWR, SO_LINGER, SOCK_STREAM, SOL_SOCKET, getaddrinfo, socket
from threading import Lock
from typing import Any, Final, Generic, TypeAlias, TypeVar

__all__ = ["Connections", "Response", "make_server", "peer_of"]

_log = logging.getLogger(__name__)

_Connection = TypeVar("_Connection", bound=Hashable)

# Longest time from a connection to the end of its request, and from there until the client has read the response.
_REQUEST_SECONDS: Final = 5.0
_RESPONSE_SECONDS: Final = 10.0
# Prometheus sends about 300.
_REQUEST_BYTES: Final = 16 << 10
_MOST_CONNECTIONS: Final = 256
_MOST_OF_PEER: Final = 64
# Usually one IPv6 host has a whole network of this size.
_PREFIX_BITS: Final = 64

Response: TypeAlias = tuple[HTTPStatus, Mapping[str, str], bytes]
"""Status, headers and body."""

_Answerer: TypeAlias = "Callable[[str, str, Message], Response]"


def make_server(host: str, port: int, answer: _Answerer) -> ThreadingHTTPServer:
    """Returns a server that listens on an IPv4 or IPv6 address; `serve_forever` accepts connections.

    Args:
        host: Name or address; an IPv6 address may be in brackets.
        port: Port; 0 takes a free one.
        answer: Returns the response to a method, path and headers; called on the connection's thread.

    Raises:
        OSError: The address is in use or invalid.
    """
    family = getaddrinfo(host.strip("[]"), port, type=SOCK_STREAM)[0][0]
    of_family = type("_FamilyServer", (_Server,), {"address_family": family})
    server: _Server = of_family((host.strip("[]"), port), answer)
    return server


class Connections(Generic[_Connection]):
    """Open connections of a server that answers one request on each. Safe for threads.

    A scraper sends its request with the first packet. So a full server closes the connection that has waited longest
    for its request: one of the new connection's peer if that has too many, else one of the peer with the most. A
    connection that is being answered is never closed.
    """

    def __init__(self, most: int, most_of_peer: int) -> None:
        """Starts without connections.

        Args:
            most: Largest number of open connections.
            most_of_peer: Largest number of open connections of one peer.
        """
        self._most = most
        self._most_of_peer = most_of_peer
        self._lock = Lock()
        self._waiting: dict[_Connection, str] = {}  # peer of each, the longest waiting first
        self._answered: dict[_Connection, str] = {}
        self._counts: Counter[str] = Counter()  # by peer

    def admit(self, connection: _Connection, peer: str) -> _Connection | None:
        """Admits a new connection if there is room or another one can be closed.

        Returns:
            Connection to close: None if there is room, the new connection itself if it is rejected.
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
        """Marks a connection as being answered; returns false if it was closed to make room before."""
        with self._lock:
            if connection not in self._waiting:
                return False
            self._answered[connection] = self._waiting.pop(connection)
            return True

    def remove(self, connection: _Connection) -> None:
        """Removes a closed connection; does nothing if it was removed before."""
        with self._lock:
            self._remove(connection)

    def _is_full(self, peer: str) -> bool:
        return self._counts[peer] >= self._most_of_peer or self._counts.total() >= self._most

    def _longest_waiting(self, peer: str | None) -> _Connection | None:
        return next((connection for connection, of in self._waiting.items() if of == peer), None)

    def _busiest_peer(self) -> str | None:
        """Returns the peer with the most connections among those with a waiting one; of equals, the longest waiting."""
        return max(dict.fromkeys(self._waiting.values()), key=self._counts.__getitem__, default=None)

    def _remove(self, connection: _Connection) -> None:
        peer = self._waiting.pop(connection, None) or self._answered.pop(connection, None)
        if peer is not None:
            self._counts[peer] -= 1
            if not self._counts[peer]:
                del self._counts[peer]


def peer_of(host: str) -> str:
    """Returns the peer of an address: an IPv4 address, or an IPv6 network."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:  # not an IP address
        return host
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return f"{IPv6Address(int(address) >> 128 - _PREFIX_BITS << 128 - _PREFIX_BITS)}/{_PREFIX_BITS}"


class _Server(ThreadingHTTPServer):
    """Server with one thread per connection, which closes after one request, so that no connection idles."""

    # Backlog of the kernel, so that a burst of connections waits instead of failing.
    request_queue_size = _MOST_CONNECTIONS

    def __init__(self, address: tuple[str, int], answer: _Answerer) -> None:
        self.answer = answer
        self._open: Connections[socket] = Connections(_MOST_CONNECTIONS, _MOST_OF_PEER)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Accepts a connection; may close another one to make room."""
        closed = self._open.admit(request, peer_of(client_address[0]))
        rejected = closed is request
        if closed is not None:
            _hang_up(closed)
        if rejected:
            self.close_request(request)
        else:
            super().process_request(request, client_address)

    def begin_answer(self, connection: socket) -> bool:
        """Marks a connection whose request was read; returns false if it was closed to make room meanwhile."""
        return self._open.begin_answer(connection)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serves a connection on its own thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._open.remove(request)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 (as the server calls it)
        """Logs a failed connection at debug level: its scraper hung up or was too slow."""
        _log.debug("the connection of %s failed", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def setup(self) -> None:
        """Sets up a reader with bounds on the time and size of the request."""
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_RequestBytes(self.connection, time.monotonic() + _REQUEST_SECONDS))

    def answer(self) -> None:
        """Answers the request that was read."""
        self.connection.settimeout(_RESPONSE_SECONDS)
        if not self.server.begin_answer(self.connection):
            return
        status, headers, body = self.server.answer(self.command, self.path, self.headers)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self._write(body)

    # The library looks for these names, and answers other methods 501.
    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer  # noqa: N815

    def _write(self, body: bytes) -> None:
        try:
            self.wfile.write(body)
        except OSError:
            # Reset the connection, else the kernel would keep the unread bytes for minutes.
            self.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            raise

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is the server's)
        """Logs nothing, because scrapes are frequent."""


class _RequestBytes(io.RawIOBase):
    """Bytes of a request, with bounds on their number and time."""

    def __init__(self, connection: socket, deadline: float) -> None:
        """Takes the connection and the deadline, in monotonic seconds."""
        self._connection = connection
        self._deadline = deadline
        self._bytes_left = _REQUEST_BYTES

    def readable(self) -> bool:
        """Returns true."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Waits for the next bytes.

        Raises:
            OSError: The bytes did not come in time, or there are too many.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"the request did not come within {_REQUEST_SECONDS:.0f} s")
        if not self._bytes_left:
            raise OSError(f"the request has more than {_REQUEST_BYTES:,} bytes")
        self._connection.settimeout(left)
        received = self._connection.recv_into(memoryview(buffer)[: self._bytes_left])
        self._bytes_left -= received
        return received


def _hang_up(connection: socket) -> None:
    """Wakes the connection's thread, which then closes the connection."""
    with suppress(OSError):  # the peer closed it first
        connection.shutdown(SHUT_RDWR)
