"""Page ``/metrics``: its content, in the format and the encoding that the scraper accepts."""

import asyncio
import zlib
from collections.abc import Callable, Coroutine, Mapping
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from threading import Lock, Thread
from typing import Any, Final, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, gzip_accepted
from prometheus_client.openmetrics import exposition as openmetrics

from service.events.live_status import JobStatus
from service.metrics.collector import ServiceCollector, StatusReader
from service.metrics.jobs import JobSeries
from service.metrics.server import Response, make_server

__all__ = ["MetricsServer", "serve_metrics"]

_Result = TypeVar("_Result")

# One page is written at a time; a scrape that waits longer is answered 503.
_WAIT_SECONDS: Final = 5.0
# For a page of a thousand jobs, 8.4 MB: level 1 gives 8 % in 38 ms without the GIL, level 6 gives 7 % in 127 ms.
_GZIP_LEVEL: Final = 1

_TEXT_HEADERS: Final = {"Content-Type": CONTENT_TYPE_PLAIN_0_0_4}
_END_MARKER: Final = b"# EOF\n"


class MetricsServer:
    """HTTP server of the metrics page. Writes each page when it is requested.

    Attributes:
        address: Address that it listens on, as host:port.
    """

    def __init__(
        self, registry: CollectorRegistry, read_jobs: Callable[[], Mapping[str, JobStatus]], host: str, port: int
    ) -> None:
        """Starts to serve.

        Args:
            registry: Registry of the service's metrics.
            read_jobs: Returns the live statuses of jobs by job id; called on threads of the server.
            host: Host name or address to listen on.
            port: Port to listen on; 0 takes a free one.

        Raises:
            OSError: The address is in use or invalid.
        """
        self._registry = registry
        self._read_jobs = read_jobs
        self._series = JobSeries()
        self._page_lock = Lock()
        self._server = make_server(host, port, self._answer)
        self._thread = Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        self.address = f"{host}:{self._server.server_port}"

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, method: str, path: str, headers: Message) -> Response:
        if path.partition("?")[0] != "/metrics":
            return HTTPStatus.NOT_FOUND, _TEXT_HEADERS, b"the metrics are at /metrics\n"
        if method not in ("GET", "HEAD"):
            rejection_headers = {**_TEXT_HEADERS, "Allow": "GET, HEAD"}
            return HTTPStatus.METHOD_NOT_ALLOWED, rejection_headers, b"only GET and HEAD are answered\n"
        content_type = _content_type(headers.get("Accept", ""))
        if not self._page_lock.acquire(timeout=_WAIT_SECONDS):
            return HTTPStatus.SERVICE_UNAVAILABLE, _TEXT_HEADERS, b"too many scrapes at a time\n"
        try:
            page = self._page(content_type)
        finally:
            self._page_lock.release()
        page_headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if not gzip_accepted(headers.get("Accept-Encoding", "")):
            return HTTPStatus.OK, page_headers, page
        zipped = zlib.compress(page, _GZIP_LEVEL, wbits=zlib.MAX_WBITS + 16)
        return HTTPStatus.OK, {**page_headers, "Content-Encoding": "gzip"}, zipped

    def _page(self, content_type: str) -> bytes:
        """Returns the service's metrics, written by the library, followed by the series of jobs."""
        is_openmetrics = content_type == openmetrics.CONTENT_TYPE_LATEST
        write = openmetrics.generate_latest if is_openmetrics else generate_latest
        service: bytes = write(self._registry)
        jobs = "".join(self._series.lines(self._read_jobs(), is_openmetrics=is_openmetrics)).encode()
        return service.removesuffix(_END_MARKER) + jobs + (_END_MARKER if is_openmetrics else b"")


def _content_type(accept: str) -> str:
    """Returns the content type of OpenMetrics 1.0 or of the text format 0.0.4, as prometheus_client reads Accept.

    Later versions only add arbitrary letters in names, which no metric here needs.
    """
    try:
        _, chosen = choose_encoder(accept)
    except TypeError:  # a version that is not a number
        return CONTENT_TYPE_PLAIN_0_0_4
    return openmetrics.CONTENT_TYPE_LATEST if "openmetrics" in chosen else CONTENT_TYPE_PLAIN_0_0_4


def serve_metrics(
    registry: CollectorRegistry,
    reader: StatusReader,
    database: Path,
    code_version: str,
    cluster_pid: Callable[[], int],
    address: tuple[str, int],
) -> MetricsServer:
    """Starts the metrics server. Call it on the event loop, which reads the status at each scrape.

    Args:
        registry: Registry with the service's instruments; the collectors are added to it.
        reader: Reader of the status of the service and of its jobs.
        database: Path of the database file.
        code_version: Version of nablad: release, plus sign, digest of the sources that compute steps.
        cluster_pid: Returns the process id of the cluster process.
        address: Host and port to listen on; port 0 takes a free one.

    Raises:
        OSError: The address is in use or invalid.
    """
    loop = asyncio.get_running_loop()
    ProcessCollector(namespace="nablad", registry=registry)
    ProcessCollector(namespace="nablad_cluster", pid=cluster_pid, registry=registry)
    registry.register(ServiceCollector(_on_loop(loop, reader.read_service), database, code_version))
    return MetricsServer(registry, _on_loop(loop, reader.read_jobs), *address)


def _on_loop(
    loop: asyncio.AbstractEventLoop, function: Callable[[], Coroutine[Any, Any, _Result]]
) -> Callable[[], _Result]:
    """Returns a blocking version of the function for other threads. It runs on the loop, which owns the status."""
    return lambda: asyncio.run_coroutine_threadsafe(function(), loop).result()
