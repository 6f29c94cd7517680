"""What the service looks up at each scrape, beside what it counts as it happens."""

import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, TypeAlias

import grpc
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nablad.v1 import cluster_pb2 as cluster_pb
from service.cluster.capacity import list_nodes_within
from service.cluster.interfaces import ClusterLike
from service.events.live_status import JobStatus, LiveStatus
from service.events.watches import Watches
from service.metrics.instruments import PRIORITIES, priority_class
from service.metrics.table import ROWS
from service.stores.job_states import TRANSITIONS, State, state_name
from service.stores.jobs import JobStore

__all__ = ["Observer", "QueueFigures", "ServiceCollector", "Standing"]

# A scrape does not wait longer for Ray.
_CLUSTER_SECONDS: Final = 1.0

_Values: TypeAlias = Mapping[tuple[str, ...], float]


@dataclass(frozen=True)
class QueueFigures:
    """Jobs that wait, of one class of priorities.

    Attributes:
        jobs: How many.
        oldest_seconds: The longest that one of them has been in the queue.
    """

    jobs: int = 0
    oldest_seconds: float = 0.0


@dataclass(frozen=True)
class Standing:
    """Figures of the service.

    Attributes:
        jobs: Number of jobs by state.
        queue: By class of priorities; those that are left out have no jobs.
        watchers: Clients that watch jobs.
        nodes: Of Ray; None while it is away, or does not answer.
    """

    jobs: Mapping[State, int] = field(default_factory=dict)
    queue: Mapping[str, QueueFigures] = field(default_factory=dict)
    watchers: int = 0
    nodes: Sequence[cluster_pb.Node] | None = None


class Observer:
    """Looks; on the event loop."""

    def __init__(
        self, jobs: JobStore, live: LiveStatus, watches: Watches, cluster: ClusterLike, now: Callable[[], datetime]
    ) -> None:
        self._jobs = jobs
        self._live = live
        self._watches = watches
        self._cluster = cluster
        self._now = now

    async def jobs(self) -> Mapping[str, JobStatus]:
        """The live figures of jobs by job id."""
        return self._live.snapshot()

    async def look(self) -> Standing:
        """Where the service stands now."""
        nodes = await list_nodes_within(self._cluster, _CLUSTER_SECONDS)
        return Standing(self._jobs.count_by_state(), self._queue(), self._watches.watchers, nodes)

    def _queue(self) -> Mapping[str, QueueFigures]:
        now = self._now().timestamp()
        return {
            priority_class(sign): QueueFigures(count, max(now - since, 0.0))
            for sign, count, since in self._jobs.queue_statistics()
        }


class ServiceCollector(Collector):
    """Gives the registry the gauges of the service."""

    def __init__(self, standing: Callable[[], Standing], database: Path, code_version: str) -> None:
        """Looks nothing up yet.

        Args:
            standing: Called at each scrape, on a thread of the scraper's.
            database: File of the stores.
            code_version: Of nablad: the release, and after a plus the digest of the sources that make steps.
        """
        self._standing = standing
        self._database = database
        self._build = (*code_version.split("+"), platform.python_version(), grpc.__version__)

    def describe(self) -> Iterator[Metric]:
        """Nothing: what there is is known when it is collected."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All families, with samples or without."""
        for name, values in self._values(self._standing()).items():
            metric = ROWS[name]
            family = GaugeMetricFamily(name, metric.help, labels=metric.labels)
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family

    def _values(self, standing: Standing) -> Mapping[str, _Values]:
        queue = {priority: standing.queue.get(priority, QueueFigures()) for priority in PRIORITIES}
        return {
            "nablad_build_info": {self._build: 1},
            "nablad_jobs": {(state_name(state),): standing.jobs.get(state, 0) for state in TRANSITIONS},
            "nablad_queue_jobs": {(priority,): figures.jobs for priority, figures in queue.items()},
            "nablad_queue_oldest_seconds": {(priority,): figures.oldest_seconds for priority, figures in queue.items()},
            "nablad_watchers": {(): standing.watchers},
            "nablad_cluster_up": {(): standing.nodes is not None},
            **_cluster(standing.nodes),
            **_disk(self._database),
        }


def _cluster(nodes: Sequence[cluster_pb.Node] | None) -> Mapping[str, _Values]:
    figures = {
        "nodes": len(nodes or ()),
        "cpus": sum(node.cpus for node in nodes or ()),
        "free_cpus": sum(node.free_cpus for node in nodes or ()),
    }
    return {f"nablad_cluster_{name}": {} if nodes is None else {(): value} for name, value in figures.items()}


def _disk(database: Path) -> Mapping[str, _Values]:
    room = os.statvfs(database.parent)
    files = (database, database.with_name(f"{database.name}-wal"))
    reserve = database.with_name("reserve")
    return {
        "nablad_store_bytes": {(): sum(file.stat().st_size for file in files if file.exists())},
        "nablad_data_directory_free_bytes": {(): room.f_bavail * room.f_frsize},
        "nablad_data_directory_reserve_bytes": {(): reserve.stat().st_size if reserve.exists() else 0},
        "nablad_data_directory_size_bytes": {(): room.f_blocks * room.f_frsize},
    }
