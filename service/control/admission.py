"""Which queued job starts next: by priority, then age, as far as there are CPUs for it."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

from nablad.v1 import cluster_pb2 as cluster_pb
from service.cluster.capacity import describe_request, explain_shortage, worker_capacity
from service.stores.jobs import Waiting

__all__ = ["Admission", "Decision"]

PASSING_SECONDS = 60.0
"""A job that has waited for CPUs so long at the head of the queue is passed by no other any more."""


@dataclass(frozen=True)
class Decision:
    """What a look at the queue brings.

    Attributes:
        job: Starts now; None if none can.
        workers: With so many.
        reasons: Why jobs wait, by job id; those not named wait for their turn.
    """

    job: Waiting | None = None
    workers: int = 0
    reasons: Mapping[str, str] = field(default_factory=dict)


class Admission:
    """Decides, and remembers who was passed.

    The first job in the order of the queue that fits on the free CPUs starts, so that small ones may pass a big one
    that has to wait, but not for ever. A job that needs more than the cluster has is in nobody's way; one that has
    begun already goes on with as many workers as there is room for.
    """

    def __init__(self, passing_seconds: float = PASSING_SECONDS) -> None:
        self._passing_seconds = passing_seconds
        self._blocked: dict[str, float] = {}  # since when, by job id

    def decide(
        self, waiting: Sequence[Waiting], nodes: Sequence[cluster_pb.Node], clock: float, held: Container[str] = ()
    ) -> Decision:
        """Looks at the queue.

        Args:
            waiting: In the order of the queue.
            nodes: Of the cluster.
            clock: Monotonic seconds.
            held: Ids of the jobs that must not start yet.
        """
        reasons: dict[str, str] = {}
        there = {job.job_id for job in waiting}
        self._blocked = {job_id: since for job_id, since in self._blocked.items() if job_id in there}
        # In a long queue many ask for the same.
        prospect = cache(partial(_prospect, nodes))
        for job in waiting:
            if job.job_id in held:
                continue
            workers, starts = prospect(job.workers, job.cpus_per_worker, begun=job.attempt > 0)
            if starts:
                self._blocked.pop(job.job_id, None)
                return Decision(job, workers, reasons)
            reasons[job.job_id] = (
                f"waits for free CPUs, for {describe_request(workers, job.cpus_per_worker)}"
                if workers
                else explain_shortage(job.workers, job.cpus_per_worker, nodes, job.job_id)
            )
            if workers and clock - self._blocked.setdefault(job.job_id, clock) >= self._passing_seconds:
                break
        return Decision(reasons=reasons)


def _prospect(nodes: Sequence[cluster_pb.Node], wanted: int, cpus_per_worker: int, *, begun: bool) -> tuple[int, bool]:
    """With how many workers a job starts, 0 if the cluster is too small for it; and whether they find room now."""
    room = worker_capacity(nodes, cpus_per_worker)
    workers = min(wanted, room) if begun else wanted
    if not 0 < workers <= room:
        return 0, False
    return workers, sum(node.free_cpus // cpus_per_worker for node in nodes) >= workers
