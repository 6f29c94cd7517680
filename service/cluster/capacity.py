"""Capacity of the cluster: its nodes, and sentences about jobs that ask for more than it has."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from nablad.v1 import cluster_pb2 as cluster_pb
from service.cluster.errors import ClusterLostError
from service.cluster.interfaces import ClusterLike

__all__ = ["NodeCache", "describe_request", "explain_shortage", "list_nodes_within", "worker_capacity"]

# Longest wait for Ray in the answer of a call about a job.
_ANSWER_SECONDS: Final = 0.5
# Calls within this time share one answer of Ray.
_FRESH_SECONDS: Final = 1.0
# Nodes are added to a running Ray cluster, CPUs to the service's own Ray.
_MORE_CPUS: Final = "more nodes, or `nablad serve --cpus`"


def describe_request(workers: int, cpus_per_worker: int) -> str:
    """Describes the workers and CPUs that a job asks for, in words."""
    cpus = f"{cpus_per_worker} CPU{'' if cpus_per_worker == 1 else 's'}"
    return f"1 worker with {cpus}" if workers == 1 else f"{workers} workers with {cpus} each"


def worker_capacity(nodes: Sequence[cluster_pb.Node], cpus_per_worker: int) -> int:
    """Returns how many workers the nodes can hold if all CPUs are free; a worker has its CPUs on one node."""
    return sum(node.cpus // cpus_per_worker for node in nodes)


def explain_shortage(workers: int, cpus_per_worker: int, nodes: Sequence[cluster_pb.Node], job_id: str = "ID") -> str:
    """Explains why a job cannot start, however long it waits, and what to do.

    Args:
        workers: Number of workers that the job asks for.
        cpus_per_worker: CPUs of each worker.
        nodes: Nodes of the cluster.
        job_id: Id for the command that helps; a placeholder if the job has no id yet.

    Returns:
        The explanation as a sentence; empty if the cluster has room for all workers.
    """
    room = worker_capacity(nodes, cpus_per_worker)
    if workers <= room:
        return ""
    needs = f"needs {describe_request(workers, cpus_per_worker)}"
    if room:
        return (
            f"{needs}, but the cluster has room for {room}: it waits until there are more CPUs ({_MORE_CPUS}), "
            f"or until `nabla job scale {job_id} {room}` lets it start with fewer workers"
        )
    largest = max((node.cpus for node in nodes), default=0)
    if not largest:
        return f"{needs}, but the cluster has no CPUs: it waits until there are some ({_MORE_CPUS})"
    return (
        f"{needs}, but no node of the cluster has more than {largest}: it waits until one has ({_MORE_CPUS}); "
        f"or cancel it, and submit it with a smaller distribution.cpus_per_worker"
    )


async def list_nodes_within(cluster: ClusterLike, seconds: float) -> Sequence[cluster_pb.Node] | None:
    """Returns the nodes of a cluster; None if it is away or does not answer in time."""
    try:
        async with asyncio.timeout(seconds):
            return await cluster.list_nodes()
    except (ClusterLostError, TimeoutError):
        return None


class NodeCache:
    """Cache of a cluster's nodes: calls within a second share one answer of Ray."""

    def __init__(self, cluster: ClusterLike, clock: Callable[[], float]) -> None:
        """Starts empty; `clock` returns monotonic seconds."""
        self._cluster = cluster
        self._clock = clock
        self._answer: asyncio.Task[Sequence[cluster_pb.Node] | None] | None = None
        self._fresh_until = 0.0

    async def get_nodes(self) -> Sequence[cluster_pb.Node] | None:
        """Returns the nodes within half a second; None if they are not known by then."""
        if self._answer is None or (self._answer.done() and self._clock() >= self._fresh_until):
            self._fresh_until = self._clock() + _FRESH_SECONDS
            self._answer = asyncio.create_task(list_nodes_within(self._cluster, _ANSWER_SECONDS))
        # A caller that is cancelled must not cancel the answer that others wait for.
        return await asyncio.shield(self._answer)
