"""Admission: chooses the queued job that starts next, by priority, then by age, as far as CPUs are free."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

from nablad.v1 import cluster_pb2 as cluster_pb
from service.cluster.capacity import describe_request, explain_shortage, worker_capacity
from service.stores.jobs import QueuedJob

__all__ = ["Admission", "AdmissionDecision"]

BLOCKED_SECONDS = 60.0
"""Time after which no other job may pass one that waits for CPUs at the head of the queue, in seconds."""


@dataclass(frozen=True)
class AdmissionDecision:
    """Result of one pass over the queue.

    Attributes:
        job: Job that starts now; None if none can.
        workers: Number of workers that it starts with.
        reasons: Why jobs wait, by job id; the others wait for their turn.
    """

    job: QueuedJob | None = None
    workers: int = 0
    reasons: Mapping[str, str] = field(default_factory=dict)


class Admission:
    """Chooses the next job, and remembers since when others are blocked.

    The first job of the queue that fits on the free CPUs starts. So small jobs may pass a big one that has to wait, but
    not for ever. A job that needs more than the cluster has blocks no other job. A job that has begun already goes on
    with as many workers as there is room for.
    """

    def __init__(self, blocked_seconds: float = BLOCKED_SECONDS) -> None:
        self._blocked_seconds = blocked_seconds
        self._blocked: dict[str, float] = {}  # since when, by job id

    def choose_next_job(
        self, queued: Sequence[QueuedJob], nodes: Sequence[cluster_pb.Node], clock: float, delayed: Container[str] = ()
    ) -> AdmissionDecision:
        """Returns the job that starts now, if any, and the reasons of those that wait.

        Args:
            queued: Queued jobs, in the order of the queue.
            nodes: Nodes of the cluster.
            clock: The time, in monotonic seconds.
            delayed: Ids of the jobs that must not start yet.
        """
        reasons: dict[str, str] = {}
        queued_ids = {job.job_id for job in queued}
        self._blocked = {job_id: since for job_id, since in self._blocked.items() if job_id in queued_ids}
        # In a long queue many jobs ask for the same.
        prospect = cache(partial(_prospect, nodes))
        for job in queued:
            if job.job_id in delayed:
                continue
            workers, starts = prospect(job.workers, job.cpus_per_worker, begun=job.attempt > 0)
            if starts:
                self._blocked.pop(job.job_id, None)
                return AdmissionDecision(job, workers, reasons)
            reasons[job.job_id] = (
                f"waits for free CPUs, for {describe_request(workers, job.cpus_per_worker)}"
                if workers
                else explain_shortage(job.workers, job.cpus_per_worker, nodes, job.job_id)
            )
            if workers and clock - self._blocked.setdefault(job.job_id, clock) >= self._blocked_seconds:
                break
        return AdmissionDecision(reasons=reasons)


def _prospect(nodes: Sequence[cluster_pb.Node], wanted: int, cpus_per_worker: int, *, begun: bool) -> tuple[int, bool]:
    """Returns the workers that a job starts with, 0 if the cluster is too small, and whether those fit now."""
    room = worker_capacity(nodes, cpus_per_worker)
    workers = min(wanted, room) if begun else wanted
    if not 0 < workers <= room:
        return 0, False
    return workers, sum(node.free_cpus // cpus_per_worker for node in nodes) >= workers
