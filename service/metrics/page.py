"""The page ``/metrics``: what stands on it, in the format and the encoding that the scraper asks for."""

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
from service.metrics.collector import Observer, ServiceCollector
from service.metrics.jobs import JobSeries
from service.metrics.server import Answer, make_server

__all__ = ["MetricsServer", "serve_metrics"]

_Result = TypeVar("_Result")

# One page is made at a time; whoever waits longer for his turn is told to come again.
_WAIT_SECONDS: Final = 5.0
# Of a thousand jobs' page, 8.4 MB, level 1 leaves 8 % in 38 ms, beside the interpreter; level 6 leaves 7 % in 127 ms.
_GZIP_LEVEL: Final = 1

_SENTENCE: Final = {"Content-Type": CONTENT_TYPE_PLAIN_0_0_4}
_END: Final = b"# EOF\n"


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
        self._server = make_server(host, port, self._answer)
        self._thread = Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        self.address = f"{host}:{self._server.server_port}"

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, method: str, path: str, headers: Message) -> Answer:
        if path.partition("?")[0] != "/metrics":
            return HTTPStatus.NOT_FOUND, _SENTENCE, b"the metrics are at /metrics\n"
        if method not in ("GET", "HEAD"):
            refused = {**_SENTENCE, "Allow": "GET, HEAD"}
            return HTTPStatus.METHOD_NOT_ALLOWED, refused, b"only GET and HEAD are answered\n"
        content_type = _content_type(headers.get("Accept", ""))
        if not self._scraping.acquire(timeout=_WAIT_SECONDS):
            return HTTPStatus.SERVICE_UNAVAILABLE, _SENTENCE, b"too many scrapes at a time\n"
        try:
            page = self._page(content_type)
        finally:
            self._scraping.release()
        about = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if not gzip_accepted(headers.get("Accept-Encoding", "")):
            return HTTPStatus.OK, about, page
        zipped = zlib.compress(page, _GZIP_LEVEL, wbits=zlib.MAX_WBITS + 16)
        return HTTPStatus.OK, {**about, "Content-Encoding": "gzip"}, zipped

    def _page(self, content_type: str) -> bytes:
        """What the library writes of the service, and then the series of jobs."""
        is_openmetrics = content_type == openmetrics.CONTENT_TYPE_LATEST
        write = openmetrics.generate_latest if is_openmetrics else generate_latest
        service: bytes = write(self._registry)
        jobs = "".join(self._series.lines(self._jobs(), is_openmetrics=is_openmetrics)).encode()
        return service.removesuffix(_END) + jobs + (_END if is_openmetrics else b"")


def _content_type(accept: str) -> str:
    """OpenMetrics 1.0 or the text format 0.0.4, as prometheus_client takes an Accept.

    The versions in which names may have any letter differ in nothing else, and no name of ours needs them.
    """
    try:
        _, chosen = choose_encoder(accept)
    except TypeError:  # a version that is no number
        return CONTENT_TYPE_PLAIN_0_0_4
    return openmetrics.CONTENT_TYPE_LATEST if "openmetrics" in chosen else CONTENT_TYPE_PLAIN_0_0_4


def serve_metrics(
    registry: CollectorRegistry,
    observer: Observer,
    database: Path,
    code_version: str,
    cluster_pid: Callable[[], int],
    address: tuple[str, int],
) -> MetricsServer:
    """Answers scrapes from now on; to be called on the event loop, which is asked at each of them.

    Args:
        registry: With what is counted as it happens; gets the rest.
        observer: Looks up where the service and its jobs stand.
        database: The file of the stores.
        code_version: Of nablad: the release, and the digest of the sources that make steps.
        cluster_pid: Process id of the cluster process.
        address: Host and port to listen on; port 0 takes a free one.

    Raises:
        OSError: The address cannot be had.
    """
    loop = asyncio.get_running_loop()
    ProcessCollector(namespace="nablad", registry=registry)
    ProcessCollector(namespace="nablad_cluster", pid=cluster_pid, registry=registry)
    registry.register(ServiceCollector(_on_loop(loop, observer.look), database, code_version))
    return MetricsServer(registry, _on_loop(loop, observer.jobs), *address)


def _on_loop(
    loop: asyncio.AbstractEventLoop, function: Callable[[], Coroutine[Any, Any, _Result]]
) -> Callable[[], _Result]:
    """The function, to be called from other threads, run by the loop's thread: the only one that knows the figures."""
    return lambda: asyncio.run_coroutine_threadsafe(function(), loop).result()
