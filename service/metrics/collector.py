"""Gauges of the service that are read at each scrape: status of jobs, queue and cluster, and free disk space."""

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

__all__ = ["QueueStatistics", "ServiceCollector", "ServiceStatus", "StatusReader"]

# Longest wait of a scrape for Ray.
_CLUSTER_SECONDS: Final = 1.0

_Values: TypeAlias = Mapping[tuple[str, ...], float]


@dataclass(frozen=True)
class QueueStatistics:
    """Statistics of the queued jobs of one priority class.

    Attributes:
        jobs: Number of queued jobs.
        oldest_seconds: Longest time that one of them has been in the queue, in seconds.
    """

    jobs: int = 0
    oldest_seconds: float = 0.0


@dataclass(frozen=True)
class ServiceStatus:
    """Status of the service at one moment.

    Attributes:
        jobs: Number of jobs by state.
        queue: Statistics of queued jobs by priority class; a missing class has no jobs.
        watchers: Number of clients that watch jobs.
        nodes: Nodes of the Ray cluster; None while Ray is disconnected or does not answer.
    """

    jobs: Mapping[State, int] = field(default_factory=dict)
    queue: Mapping[str, QueueStatistics] = field(default_factory=dict)
    watchers: int = 0
    nodes: Sequence[cluster_pb.Node] | None = None


class StatusReader:
    """Reads the status of the service and of its jobs. Runs on the event loop."""

    def __init__(
        self, jobs: JobStore, live: LiveStatus, watches: Watches, cluster: ClusterLike, now: Callable[[], datetime]
    ) -> None:
        self._jobs = jobs
        self._live = live
        self._watches = watches
        self._cluster = cluster
        self._now = now

    async def read_jobs(self) -> Mapping[str, JobStatus]:
        """Returns the live statuses of jobs by job id."""
        return self._live.snapshot()

    async def read_service(self) -> ServiceStatus:
        """Returns the present status of the service."""
        nodes = await list_nodes_within(self._cluster, _CLUSTER_SECONDS)
        return ServiceStatus(self._jobs.count_by_state(), self._queue(), self._watches.watchers, nodes)

    def _queue(self) -> Mapping[str, QueueStatistics]:
        now = self._now().timestamp()
        return {
            priority_class(sign): QueueStatistics(count, max(now - since, 0.0))
            for sign, count, since in self._jobs.queue_statistics()
        }


class ServiceCollector(Collector):
    """Collector of the service's gauges, for prometheus_client's registry."""

    def __init__(self, read_status: Callable[[], ServiceStatus], database: Path, code_version: str) -> None:
        """Takes the sources of the gauges; reads nothing yet.

        Args:
            read_status: Returns the status of the service; called at each scrape, on the thread of its connection.
            database: Path of the database file.
            code_version: Version of nablad: release, plus sign, digest of the sources that compute steps.
        """
        self._read_status = read_status
        self._database = database
        self._build = (*code_version.split("+"), platform.python_version(), grpc.__version__)

    def describe(self) -> Iterator[Metric]:
        """Yields nothing, because the families are known when they are collected."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yields all families, with or without samples."""
        for name, values in self._values(self._read_status()).items():
            metric = ROWS[name]
            family = GaugeMetricFamily(name, metric.help, labels=metric.labels)
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family

    def _values(self, status: ServiceStatus) -> Mapping[str, _Values]:
        queue = {priority: status.queue.get(priority, QueueStatistics()) for priority in PRIORITIES}
        return {
            "nablad_build_info": {self._build: 1},
            "nablad_jobs": {(state_name(state),): status.jobs.get(state, 0) for state in TRANSITIONS},
            "nablad_queue_jobs": {(priority,): statistics.jobs for priority, statistics in queue.items()},
            "nablad_queue_oldest_seconds": {
                (priority,): statistics.oldest_seconds for priority, statistics in queue.items()
            },
            "nablad_watchers": {(): status.watchers},
            "nablad_cluster_up": {(): status.nodes is not None},
            **_cluster(status.nodes),
            **_disk(self._database),
        }


def _cluster(nodes: Sequence[cluster_pb.Node] | None) -> Mapping[str, _Values]:
    values = {
        "nodes": len(nodes or ()),
        "cpus": sum(node.cpus for node in nodes or ()),
        "free_cpus": sum(node.free_cpus for node in nodes or ()),
    }
    return {f"nablad_cluster_{name}": {} if nodes is None else {(): value} for name, value in values.items()}


def _disk(database: Path) -> Mapping[str, _Values]:
    file_system = os.statvfs(database.parent)
    files = (database, database.with_name(f"{database.name}-wal"))
    reserve = database.with_name("reserve")
    return {
        "nablad_store_bytes": {(): sum(file.stat().st_size for file in files if file.exists())},
        "nablad_data_directory_free_bytes": {(): file_system.f_bavail * file_system.f_frsize},
        "nablad_data_directory_reserve_bytes": {(): reserve.stat().st_size if reserve.exists() else 0},
        "nablad_data_directory_size_bytes": {(): file_system.f_blocks * file_system.f_frsize},
    }
