"""The capacity of the cluster, and jobs that ask for more than it has."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from nablad.v1 import cluster_pb2 as cluster_pb
from service.cluster.errors import ClusterLostError
from service.cluster.interfaces import ClusterLike

__all__ = ["KnownNodes", "asked", "look_up_nodes", "room_for", "shortage"]

# An answer about a job does not wait longer for Ray, and many of them ask it once.
_ANSWER_SECONDS: Final = 0.5
_FRESH_SECONDS: Final = 1.0
# The one on a cluster, the other on the service's own Ray.
_MORE_CPUS: Final = "more nodes, or `nablad serve --cpus`"


def asked(workers: int, cpus_per_worker: int) -> str:
    """What a job asks for, in words."""
    cpus = f"{cpus_per_worker} CPU{'' if cpus_per_worker == 1 else 's'}"
    return f"1 worker with {cpus}" if workers == 1 else f"{workers} workers with {cpus} each"


def room_for(nodes: Sequence[cluster_pb.Node], cpus_per_worker: int) -> int:
    """Returns how many workers the nodes can hold, were all of their CPUs free; each has its CPUs on one node."""
    return sum(node.cpus // cpus_per_worker for node in nodes)


def shortage(workers: int, cpus_per_worker: int, nodes: Sequence[cluster_pb.Node], job_id: str = "ID") -> str:
    """Returns why a job cannot start however long it waits, as a sentence that says what to do.

    Args:
        workers: That it asks for.
        cpus_per_worker: CPUs of each.
        nodes: Of the cluster.
        job_id: For the command that helps; its placeholder if the job has no id yet.

    Returns:
        The sentence; empty if the cluster has room for all of them.
    """
    room = room_for(nodes, cpus_per_worker)
    if workers <= room:
        return ""
    needs = f"needs {asked(workers, cpus_per_worker)}"
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


async def look_up_nodes(cluster: ClusterLike, seconds: float) -> Sequence[cluster_pb.Node] | None:
    """Returns the nodes of a cluster; None while it is away, or when it does not answer within some seconds."""
    try:
        async with asyncio.timeout(seconds):
            return await cluster.nodes()
    except (ClusterLostError, TimeoutError):
        return None


class KnownNodes:
    """The nodes of a cluster as of a moment ago: callers that come together share one question to Ray."""

    def __init__(self, cluster: ClusterLike, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._cluster = cluster
        self._clock = clock
        self._answer: asyncio.Task[Sequence[cluster_pb.Node] | None] | None = None
        self._fresh_until = 0.0

    async def get(self) -> Sequence[cluster_pb.Node] | None:
        """Returns the nodes, after half a second at the latest; None if they are not known."""
        if self._answer is None or (self._answer.done() and self._clock() >= self._fresh_until):
            self._fresh_until = self._clock() + _FRESH_SECONDS
            self._answer = asyncio.create_task(look_up_nodes(self._cluster, _ANSWER_SECONDS))
        # A caller that goes away does not take the answer from the others.
        return await asyncio.shield(self._answer)
