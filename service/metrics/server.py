"""The HTTP server of ``/metrics``."""

import logging
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from socket import SOCK_STREAM, getaddrinfo
from socketserver import ThreadingMixIn
from threading import BoundedSemaphore, Lock, Thread
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, generate_latest

from service.live import LiveJob
from service.metrics.jobs import JobSeries

__all__ = ["MetricsServer"]

_log = logging.getLogger(__name__)

# A client that says nothing, or does not read, for so long is let go.
_PATIENCE_SECONDS: Final = 10.0
# One page is made at a time; whoever waits longer for his turn is told to come again.
_WAIT_SECONDS: Final = 5.0
_MOST_CONNECTIONS: Final = 256

_TEXT: Final = ("Content-Type", "text/plain; version=0.0.4; charset=utf-8")


class MetricsServer:
    """Answers each scrape from the figures as they stand then.

    Attributes:
        address: host:port.
    """

    def __init__(
        self, registry: CollectorRegistry, jobs: Callable[[], Mapping[str, LiveJob]], host: str, port: int
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
        self._server = make_server(host.strip("[]"), port, self._answer, _server_class(host, port), _Handler)
        self._thread = Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        self.address = f"{host}:{self._server.server_port}"

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/metrics":
            start_response(_status(HTTPStatus.NOT_FOUND), [_TEXT])
            return [b"the metrics are at /metrics\n"]
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            start_response(_status(HTTPStatus.METHOD_NOT_ALLOWED), [_TEXT, ("Allow", "GET, HEAD")])
            return [b"only GET and HEAD are answered\n"]
        if not self._scraping.acquire(timeout=_WAIT_SECONDS):
            start_response(_status(HTTPStatus.SERVICE_UNAVAILABLE), [_TEXT])
            return [b"too many scrapes at a time\n"]
        try:
            page = self._page()
        finally:
            self._scraping.release()
        start_response(_status(HTTPStatus.OK), [_TEXT, ("Content-Length", str(len(page)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [page]

    def _page(self) -> bytes:
        return generate_latest(self._registry) + "".join(self._series.lines(self._jobs())).encode()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._room = BoundedSemaphore(_MOST_CONNECTIONS)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Each connection has a thread; one too many is closed at once."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """On the connection's thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 (as the server calls it)
        """What fails is the connection of a scraper that hung up."""
        _log.debug("the connection of %s failed", client_address)


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE_SECONDS

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is the server's)
        """Scrapes are not worth a line."""


def _server_class(host: str, port: int) -> type[_Server]:
    """For addresses of the host's family."""
    family = getaddrinfo(host.strip("[]"), port, type=SOCK_STREAM)[0][0]
    return type("_FamilyServer", (_Server,), {"address_family": family})


def _status(status: HTTPStatus) -> str:
    return f"{status.value} {status.phrase}"
