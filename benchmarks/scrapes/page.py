"""The page of a service with many jobs: its size, and its time beside prometheus_client's for the same series."""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from urllib.request import urlopen

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from benchmarks.works import PAPER_500
from nablad.v1 import cluster_pb2 as cluster_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1.metrics_pb2 import Metrics
from service.events.job_events import CheckpointWritten, ProgressReported, StateChanged
from service.events.live_status import LiveStatus
from service.events.watches import Watches
from service.metrics.collector import StatusReader
from service.metrics.instruments import Instruments
from service.metrics.page import MetricsServer, serve_metrics
from service.parameter_server.progress.step_statistics import PHASES
from service.stores.database import Database
from service.stores.jobs import JobStore

__all__ = ["Page", "measure"]

_BUCKETS = 14
_CHECKPOINT_TIME = 1.8e9


@dataclass(frozen=True)
class Page:
    """Measurements of the page.

    Attributes:
        jobs: On the page.
        size_bytes: Of it.
        series: On it.
        first_seconds: Of the first scrape, which puts together the labels of every series.
        seconds: Of each further scrape, from the request to the last byte.
        library_seconds: Of each page that prometheus_client makes of the same series, without a server.
    """

    jobs: int
    size_bytes: int
    series: int
    first_seconds: float
    seconds: list[float]
    library_seconds: list[float]

    @property
    def typical_seconds(self) -> float:
        """Median of the scrapes after the first one, in seconds."""
        return median(self.seconds)

    @property
    def ratio(self) -> float:
        """Ratio of a scrape's time to that of the library."""
        return self.typical_seconds / median(self.library_seconds)


def measure(jobs: int, workers: int, layers: int, scrapes: int) -> Page:
    """Scrapes the page of a service with so many jobs that all run, and have so many workers and layers each."""
    page, first, seconds = asyncio.run(_scrape(jobs, workers, layers, scrapes))
    library = _Library(page.decode())
    return Page(
        jobs,
        len(page),
        sum(not line.startswith(b"#") for line in page.splitlines()),
        first,
        seconds,
        [_timed(library.page)[1] for _ in range(scrapes)],
    )


async def _scrape(jobs: int, workers: int, layers: int, scrapes: int) -> tuple[bytes, float, list[float]]:
    """The page, and the seconds of the first scrape and of each that follows."""
    with tempfile.TemporaryDirectory(prefix="nablad-bench-") as folder:
        database = Path(folder, "nablad.sqlite3")
        async with _metrics_of_a_service(database, jobs, workers, layers) as server:
            return await asyncio.to_thread(_scrape_all, server.address, scrapes)


def _scrape_all(address: str, scrapes: int) -> tuple[bytes, float, list[float]]:
    page, first = _timed(lambda: _get(address))
    return page, first, [_timed(lambda: _get(address))[1] for _ in range(scrapes)]


@asynccontextmanager
async def _metrics_of_a_service(database: Path, jobs: int, workers: int, layers: int) -> AsyncIterator[MetricsServer]:
    """Serves the page alone: stores, event loop, and a cluster that answers, without the rest of the service."""
    registry = CollectorRegistry()
    Instruments(registry)
    opened = Database(database)
    store, live = JobStore(opened, lambda: datetime.now(UTC)), LiveStatus(time.monotonic)
    spec = PAPER_500.spec()
    spec.distribution.workers = workers
    for number in range(jobs):
        job = store.create(spec, "")
        started = jobs_pb.Job()
        started.CopyFrom(job)
        started.state, started.attempt = jobs_pb.JOB_STATE_STARTING, 1
        checkpoint = jobs_pb.Checkpoint(step=number)
        live.receive(StateChanged(job.job_id, started, job))
        live.receive(ProgressReported(job.job_id, _progress(number, workers), _statistics(number, workers, layers)))
        live.receive(CheckpointWritten(job.job_id, checkpoint, 1.0, _CHECKPOINT_TIME + number))
    watches = Watches(store, live, time.monotonic, interval_seconds=0.5)
    reader = StatusReader(store, live, watches, _Cluster(), lambda: datetime.now(UTC))
    server = serve_metrics(registry, reader, database, "1+2", os.getpid, ("127.0.0.1", 0))
    try:
        yield server
    finally:
        await asyncio.to_thread(server.close)
        opened.close()


class _Cluster:
    """Has one node."""

    async def list_nodes(self) -> list[cluster_pb.Node]:
        return [cluster_pb.Node(cpus=8, free_cpus=4)]

    async def reserve_cpus(self, workers: int, cpus_per_worker: int) -> None:
        raise NotImplementedError(f"{workers} workers with {cpus_per_worker} CPUs: nothing is run here")


class _Library(Collector):
    """The same series, as prometheus_client has them when a collector gives them."""

    def __init__(self, page: str) -> None:
        self._families = list(text_string_to_metric_families(page))
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)

    def page(self) -> bytes:
        return generate_latest(self._registry)


def _get(address: str) -> bytes:
    with urlopen(f"http://{address}/metrics") as answer:
        page: bytes = answer.read()
    return page


def _timed(function: Callable[[], bytes]) -> tuple[bytes, float]:
    begin = time.perf_counter()
    page = function()
    return page, time.perf_counter() - begin


def _statistics(number: int, workers: int, layers: int) -> ps_pb.AttemptStatistics:
    """Everything that can be known, in figures as long as real ones."""
    usage = ps_pb.ProcessStatistics(cpu_seconds=number / 7, resident_memory_bytes=150_000_000 + number)
    return ps_pb.AttemptStatistics(
        step_seconds_bounds=[10 ** (-4 + bucket / 2) for bucket in range(_BUCKETS - 1)],
        step_seconds_counts=range(_BUCKETS),
        step_seconds_sum=number / 3,
        phases=[ps_pb.PhaseStatistics(phase=phase, steps=9, **_figures(number)) for phase in PHASES],
        layers=[ps_pb.LayerStatistics(weight_norm=number / 7, gradient_norm=number / 9) for _ in range(layers)],
        workers=[
            ps_pb.WorkerStatistics(
                worker_id=f"worker-{worker + 1}", results=number, samples=number, lag_seconds=number / 7, process=usage
            )
            for worker in range(workers)
        ],
        process=usage,
    )


def _progress(number: int, workers: int) -> jobs_pb.Progress:
    return jobs_pb.Progress(
        epoch=1, epochs=9, step=number, steps=9000, samples=number, samples_per_second=number / 7, learning_rate=0.1,
        training=Metrics(cost=number / 7, accuracy=number / 7000), gradient_norm=number / 11, workers_alive=workers,
        validation=Metrics(cost=number / 9, accuracy=number / 9000),
    )  # fmt: skip


def _figures(number: int) -> Mapping[str, float]:
    return {"p50": number / 7000, "p90": number / 6000, "p99": number / 5000, "seconds_sum": number / 7}
