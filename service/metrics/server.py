"""An HTTP server that answers one request on each connection, within bounds of time, bytes and connections."""

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

__all__ = ["Answer", "Connections", "make_server", "peer_of"]

_log = logging.getLogger(__name__)

_Connection = TypeVar("_Connection", bound=Hashable)

# A request has to be there as a whole so long after its connection, and its answer has to be read so long after that.
_REQUEST_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 10.0
# Prometheus's request has some 300.
_REQUEST_BYTES: Final = 16 << 10
_MOST_CONNECTIONS: Final = 256
_MOST_OF_PEER: Final = 64
# A host of IPv6 usually has a network of this size to itself.
_PREFIX_BITS: Final = 64

Answer: TypeAlias = tuple[HTTPStatus, Mapping[str, str], bytes]
"""Status, headers and body."""

_Answerer: TypeAlias = "Callable[[str, str, Message], Answer]"


def make_server(host: str, port: int, answer: _Answerer) -> ThreadingHTTPServer:
    """Listens on an address, of IPv4 or IPv6; `serve_forever` takes connections in.

    Args:
        host: Name or address; one of IPv6 may stand in brackets.
        port: 0 takes a free one.
        answer: Gives the answer to a method, path and headers; called on the thread of a connection.

    Raises:
        OSError: The address cannot be had.
    """
    family = getaddrinfo(host.strip("[]"), port, type=SOCK_STREAM)[0][0]
    of_family = type("_FamilyServer", (_Server,), {"address_family": family})
    server: _Server = of_family((host.strip("[]"), port), answer)
    return server


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


class _Server(ThreadingHTTPServer):
    """Has a thread for each connection. One request comes over it: so no scraper has a connection that idles."""

    # The kernel lets newer connections wait while older ones are taken in, however many come at once.
    request_queue_size = _MOST_CONNECTIONS

    def __init__(self, address: tuple[str, int], answer: _Answerer) -> None:
        self.answer = answer
        self._open: Connections[socket] = Connections(_MOST_CONNECTIONS, _MOST_OF_PEER)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Takes a connection in; another one may have to make room."""
        closed = self._open.admit(request, peer_of(client_address[0]))
        refused = closed is request
        if closed is not None:
            _hang_up(closed)
        if refused:
            self.close_request(request)
        else:
            super().process_request(request, client_address)

    def begin_answer(self, connection: socket) -> bool:
        """Notes that the request of a connection was read; false if the connection had to make room meanwhile."""
        return self._open.begin_answer(connection)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """On the connection's thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._open.remove(request)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 (as the server calls it)
        """What fails is the connection of a scraper that hung up, or was too slow."""
        _log.debug("the connection of %s failed", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def setup(self) -> None:
        """Reads within the bounds of a request."""
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_RequestBytes(self.connection, time.monotonic() + _REQUEST_SECONDS))

    def answer(self) -> None:
        """Answers the request that was read."""
        self.connection.settimeout(_ANSWER_SECONDS)
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
            # Else the kernel would keep for minutes what the client does not read.
            self.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            raise

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is the server's)
        """Scrapes are not worth a line."""


class _RequestBytes(io.RawIOBase):
    """The bytes of a request: neither more of them nor later than is allowed."""

    def __init__(self, connection: socket, deadline: float) -> None:
        """`deadline` is in monotonic seconds."""
        self._connection = connection
        self._deadline = deadline
        self._room = _REQUEST_BYTES

    def readable(self) -> bool:
        """They are there to be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Waits for the next bytes.

        Raises:
            OSError: They did not come in time, or there are too many.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"the request did not come within {_REQUEST_SECONDS:.0f} s")
        if not self._room:
            raise OSError(f"the request has more than {_REQUEST_BYTES:,} bytes")
        self._connection.settimeout(left)
        came = self._connection.recv_into(memoryview(buffer)[: self._room])
        self._room -= came
        return came


def _hang_up(connection: socket) -> None:
    """Ends what the connection's thread waits for; the thread then closes it."""
    with suppress(OSError):  # the other end was faster
        connection.shutdown(SHUT_RDWR)
