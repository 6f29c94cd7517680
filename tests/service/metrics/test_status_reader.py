"""Status reader: queue from the store, nodes from the cluster."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nablad.v1 import cluster_pb2 as cluster_pb
from nablad.v1 import job_spec_pb2 as spec_pb
from service.cluster.errors import ClusterLostError
from service.events.live_status import LiveStatus
from service.events.watches import Watches
from service.metrics.collector import QueueStatistics, StatusReader
from service.stores.database import Database
from service.stores.jobs import JobStore


class Cluster:
    """One node, or an error."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    async def list_nodes(self) -> list[cluster_pb.Node]:
        if self._error:
            raise self._error
        return [cluster_pb.Node(cpus=4, free_cpus=1)]

    async def reserve_cpus(self, *_: Any) -> None:
        raise AssertionError


@pytest.fixture
def clock() -> list[datetime]:
    """The time, in a list so that tests can change it."""
    return [datetime(2026, 1, 1, tzinfo=UTC)]


@pytest.fixture
def store(database: Database, clock: list[datetime]) -> JobStore:
    return JobStore(database, lambda: clock[0])


def _reader(store: JobStore, clock: list[datetime], cluster: Cluster) -> StatusReader:
    live = LiveStatus(lambda: 0.0)
    return StatusReader(store, live, Watches(store, live, lambda: 0.0, 0.0), cluster, lambda: clock[0])


async def test_the_queue_is_read_by_priority_class(store: JobStore, clock: list[datetime]) -> None:
    """Each class has its longest wait; started jobs are left out."""
    for priority, count in ((-3, 1), (0, 2), (9, 1), (1, 1)):
        for _ in range(count):
            store.create(spec_pb.JobSpec(name="a", priority=priority), "")
        clock[0] += timedelta(seconds=10)
    started = store.create(spec_pb.JobSpec(name="a"), "")
    store.move(started.job_id, 2, "test")
    status = await _reader(store, clock, Cluster()).read_service()
    assert status.queue == {
        "low": QueueStatistics(1, 40),
        "normal": QueueStatistics(2, 30),
        "high": QueueStatistics(2, 20),
    }
    assert status.nodes == [cluster_pb.Node(cpus=4, free_cpus=1)]


async def test_the_longest_wait_need_not_be_that_of_the_first_job(store: JobStore, clock: list[datetime]) -> None:
    """A started job that is queued again waits since then; waits are never negative."""
    first = store.create(spec_pb.JobSpec(name="a"), "").job_id
    clock[0] += timedelta(seconds=10)
    store.create(spec_pb.JobSpec(name="a"), "")
    store.move(first, 2, "test")
    clock[0] += timedelta(seconds=10)
    store.move(first, 1, "test")
    assert (await _reader(store, clock, Cluster()).read_service()).queue == {"normal": QueueStatistics(2, 10)}
    clock[0] -= timedelta(hours=1)
    assert (await _reader(store, clock, Cluster()).read_service()).queue == {"normal": QueueStatistics(2, 0)}


@pytest.mark.parametrize("error", [ClusterLostError("away"), TimeoutError()])
async def test_a_ray_that_is_away_does_not_hide_the_rest(
    store: JobStore, clock: list[datetime], error: Exception
) -> None:
    """Neither does a cluster that does not answer."""
    store.create(spec_pb.JobSpec(name="a"), "")
    status = await _reader(store, clock, Cluster(error)).read_service()
    assert status.nodes is None
    assert status.queue["normal"].jobs == 1
