"""Warnings about accepted jobs: what does no harm to a result, but is probably not meant."""

from collections.abc import Iterator, Sequence

from nablad.v1 import cluster_pb2 as cluster_pb
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from service.cluster.capacity import explain_shortage
from service.stores.job_states import ENDED, QUEUED

__all__ = ["job_warnings"]

_NOT_SUBMITTED = jobs_pb.JOB_STATE_UNSPECIFIED


def job_warnings(job: jobs_pb.Job, nodes: Sequence[cluster_pb.Node] | None) -> list[jobs_pb.JobWarning]:
    """Returns what the author of a job may want to change.

    They follow from the job as it is now, and are not kept: another number of workers brings others.

    Args:
        job: With its completed spec; in no state if it was only checked.
        nodes: Of the cluster; None if they are not known, which is no reason to warn.
    """
    if job.state in ENDED:
        return []
    found = list(_idle_workers(job.spec))
    # A job that has begun goes on with as many workers as there is room for.
    if nodes is not None and job.state in (_NOT_SUBMITTED, QUEUED) and not job.attempt:
        found += _too_few_cpus(job, nodes)
    return found


def _idle_workers(spec: spec_pb.JobSpec) -> Iterator[jobs_pb.JobWarning]:
    """More workers than parts of a mini-batch: there is never work for all of them."""
    workers, parts, rows = spec.distribution.workers, spec.distribution.micro_batches, spec.training.batch_size
    idle = workers - parts
    if not 0 < parts < workers:
        return
    cut = "is one part" if parts == 1 else f"is cut into {parts} parts"
    enough = (
        f"submit it with distribution.micro_batches {workers}"
        if workers <= rows
        else f"submit it with a training.batch_size of at least {workers} and distribution.micro_batches {workers}"
    )
    yield jobs_pb.JobWarning(
        kind=jobs_pb.WARNING_KIND_IDLE_WORKERS,
        field="distribution.workers",
        message=(
            f"{idle} of {workers} workers {'has' if idle == 1 else 'have'} nothing to do, because a mini-batch {cut}: "
            f"ask for {parts}, or {enough} (the parts of a mini-batch fix the last bits of the result, so they never "
            "follow from the workers)"
        ),
    )


def _too_few_cpus(job: jobs_pb.Job, nodes: Sequence[cluster_pb.Node]) -> Iterator[jobs_pb.JobWarning]:
    """More workers than the cluster has room for: the job would wait for ever."""
    distribution = job.spec.distribution
    sentence = explain_shortage(distribution.workers, distribution.cpus_per_worker, nodes, job.job_id or "ID")
    if sentence:
        yield jobs_pb.JobWarning(kind=jobs_pb.WARNING_KIND_TOO_FEW_CPUS, field="distribution.workers", message=sentence)
