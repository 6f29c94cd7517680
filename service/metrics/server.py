"""The HTTP server of ``/metrics``."""

import io
import logging
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR, SO_LINGER, SOCK_STREAM, SOL_SOCKET, getaddrinfo, socket
from threading import Lock, Thread
from typing import Any, Final, TypeAlias

from prometheus_client import CollectorRegistry, generate_latest

from service.events.live_status import JobStatus
from service.metrics.connections import Connections, peer_of
from service.metrics.jobs import JobSeries

__all__ = ["MetricsServer"]

_log = logging.getLogger(__name__)

# A request has to be there as a whole so long after its connection, and its answer has to be read so long after that.
_REQUEST_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 10.0
# Prometheus's request has some 300.
_REQUEST_BYTES: Final = 16 << 10
# One page is made at a time; whoever waits longer for his turn is told to come again.
_WAIT_SECONDS: Final = 5.0
_MOST_CONNECTIONS: Final = 256
_MOST_OF_PEER: Final = 64
# Of a thousand jobs' page, 8.4 MB, level 1 leaves 8 % in 38 ms, beside the interpreter; level 6 leaves 7 % in 127 ms.
_GZIP_LEVEL: Final = 1

_TEXT: Final = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
# Status, headers and body.
_Answer: TypeAlias = tuple[HTTPStatus, Mapping[str, str], bytes]


class MetricsServer:
    """Answers each scrape from the figures as they stand then.

    Attributes:
        address: host:port.
    """

    def __init__(
        self, registry: CollectorRegistry, jobs: Callable[[], Mapping[str, JobStatus]], host: str, port: int
    ) -> None:
        """Serves at once; port 0 takes a free one.

        Args:
            registry: What concerns the service.
            jobs: Gives the live figures of jobs by job id; called on threads of the server's.
            host: Where to listen.
            port: Where to listen.

        Raises:
            OSError: The address cannot be had.
        """
        self._registry = registry
        self._jobs = jobs
        self._series = JobSeries()
        self._scraping = Lock()
        self._server = _server_class(host, port)((host.strip("[]"), port), self._answer)
        self._thread = Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        self.address = f"{host}:{self._server.server_port}"

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, method: str, path: str, accepted: str) -> _Answer:
        """The answer to a request; `accepted` is its Accept-Encoding."""
        if path.partition("?")[0] != "/metrics":
            return HTTPStatus.NOT_FOUND, _TEXT, b"the metrics are at /metrics\n"
        if method not in ("GET", "HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, {**_TEXT, "Allow": "GET, HEAD"}, b"only GET and HEAD are answered\n"
        if not self._scraping.acquire(timeout=_WAIT_SECONDS):
            return HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, b"too many scrapes at a time\n"
        try:
            page = self._page()
        finally:
            self._scraping.release()
        headers = {**_TEXT, "Vary": "Accept-Encoding"}
        if not _accepts_gzip(accepted):
            return HTTPStatus.OK, headers, page
        zipped = zlib.compress(page, _GZIP_LEVEL, wbits=zlib.MAX_WBITS + 16)
        return HTTPStatus.OK, {**headers, "Content-Encoding": "gzip"}, zipped

    def _page(self) -> bytes:
        return generate_latest(self._registry) + "".join(self._series.lines(self._jobs())).encode()


class _Server(ThreadingHTTPServer):
    """Has a thread for each connection. One request comes over it: so no scraper has a connection that idles."""

    # The kernel lets newer connections wait while older ones are taken in, however many come at once.
    request_queue_size = _MOST_CONNECTIONS

    def __init__(self, address: tuple[str, int], answer: Callable[[str, str, str], _Answer]) -> None:
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
        status, headers, body = self.server.answer(self.command, self.path, self.headers.get("Accept-Encoding", ""))
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


def _accepts_gzip(accepted: str) -> bool:
    """Whether a client whose Accept-Encoding this is prefers gzip to the page as it is, or does not mind."""
    weights = dict(map(_weight, accepted.lower().split(",")))
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


def _weight(element: str) -> tuple[str, float]:
    """A coding of Accept-Encoding with its weight; one that cannot be read is none."""
    coding, *parameters = (part.strip() for part in element.split(";"))
    values = [value for name, _, value in (parameter.partition("=") for parameter in parameters) if name == "q"]
    try:
        return coding, float(values[0]) if values else 1.0
    except ValueError:
        return coding, 0.0


def _server_class(host: str, port: int) -> type[_Server]:
    """For addresses of the host's family."""
    family = getaddrinfo(host.strip("[]"), port, type=SOCK_STREAM)[0][0]
    return type("_FamilyServer", (_Server,), {"address_family": family})
