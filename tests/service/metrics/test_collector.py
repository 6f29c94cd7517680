"""Gauges of the service that are read at each scrape."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from nablad.v1 import cluster_pb2 as cluster_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from service.metrics.collector import QueueStatistics, ServiceCollector, ServiceStatus


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "nablad.sqlite3"
    path.write_bytes(bytes(1000))
    path.with_name("nablad.sqlite3-wal").write_bytes(bytes(24))
    return path


def _registry(status: ServiceStatus, database: Path) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(ServiceCollector(lambda: status, database, "0.1.0+4b1d6f0c52aa"))
    return registry


def test_states_and_priorities_without_jobs_have_series(database: Path) -> None:
    """An alert on a missing series never fires."""
    get = _registry(ServiceStatus(), database).get_sample_value
    assert get("nablad_jobs", {"state": "queued"}) == 0
    for priority in ("low", "normal", "high"):
        assert get("nablad_queue_jobs", {"priority": priority}) == 0
        assert get("nablad_queue_oldest_seconds", {"priority": priority}) == 0


def test_the_status_is_collected(database: Path) -> None:
    """Jobs, the queue, watchers, Ray's CPUs, and the database with its log."""
    status = ServiceStatus(
        jobs={jobs_pb.JOB_STATE_RUNNING: 2},
        queue={"high": QueueStatistics(3, 4.5)},
        watchers=5,
        nodes=[cluster_pb.Node(cpus=4, free_cpus=1), cluster_pb.Node(cpus=8)],
    )
    get = _registry(status, database).get_sample_value
    assert get("nablad_jobs", {"state": "running"}) == 2
    assert get("nablad_queue_jobs", {"priority": "high"}) == 3
    assert get("nablad_queue_oldest_seconds", {"priority": "high"}) == 4.5
    assert get("nablad_watchers") == 5
    assert [get(f"nablad_cluster_{name}") for name in ("up", "nodes", "cpus", "free_cpus")] == [1, 2, 12, 1]
    assert get("nablad_store_bytes") == 1024
    assert get("nablad_data_directory_free_bytes") <= get("nablad_data_directory_size_bytes")


def test_without_ray_the_cluster_has_no_values(database: Path) -> None:
    """Only nablad_cluster_up is written, because 0 CPUs would be wrong."""
    get = _registry(ServiceStatus(nodes=None), database).get_sample_value
    assert get("nablad_cluster_up") == 0
    assert get("nablad_cluster_cpus") is None
