"""All that a scrape of the service shows, put together."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector

from service.metrics.collector import ServiceCollector
from service.metrics.server import MetricsServer
from service.metrics.standing import Observer

__all__ = ["serve_metrics"]

_Result = TypeVar("_Result")


def serve_metrics(
    registry: CollectorRegistry,
    observer: Observer,
    database: Path,
    cluster_pid: Callable[[], int],
    address: tuple[str, int],
) -> MetricsServer:
    """Answers scrapes from now on; to be called on the event loop, which is asked at each of them.

    Args:
        registry: With what is counted as it happens; gets the rest.
        observer: Looks up where the service and its jobs stand.
        database: The file of the stores.
        cluster_pid: Process id of the cluster process.
        address: Host and port to listen on; port 0 takes a free one.

    Raises:
        OSError: The address cannot be had.
    """
    loop = asyncio.get_running_loop()
    ProcessCollector(namespace="nablad", registry=registry)
    ProcessCollector(namespace="nablad_cluster", pid=cluster_pid, registry=registry)
    registry.register(ServiceCollector(_on_loop(loop, observer.look), database))
    return MetricsServer(registry, _on_loop(loop, observer.jobs), *address)


def _on_loop(
    loop: asyncio.AbstractEventLoop, function: Callable[[], Coroutine[Any, Any, _Result]]
) -> Callable[[], _Result]:
    """The function, to be called from other threads, run by the loop's thread: the only one that knows the figures."""
    return lambda: asyncio.run_coroutine_threadsafe(function(), loop).result()
