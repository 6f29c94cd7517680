"""Where the service stands, looked up when somebody scrapes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from nablad.v1 import cluster_pb2 as cluster_pb
from service.cluster.capacity import look_up_nodes
from service.cluster.interfaces import ClusterLike
from service.events.live_status import JobStatus, LiveStatus
from service.events.watches import Watches
from service.metrics.instruments import priority_class
from service.stores.job_states import State
from service.stores.jobs import JobStore

__all__ = ["Observer", "QueueFigures", "Standing"]

# A scrape does not wait longer for Ray.
_CLUSTER_SECONDS: Final = 1.0


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
        nodes = await look_up_nodes(self._cluster, _CLUSTER_SECONDS)
        return Standing(self._jobs.counts(), self._queue(), self._watches.watchers, nodes)

    def _queue(self) -> Mapping[str, QueueFigures]:
        now = self._now().timestamp()
        return {
            priority_class(sign): QueueFigures(count, max(now - since, 0.0))
            for sign, count, since in self._jobs.queue_figures()
        }
