"""The soak itself."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.errors import JobError
from benchmarks.load.calls import cpus
from benchmarks.soak.reading import Reading, read_at_rest
from nablad import Client, demo
from nablad.jobspec import complete, load
from nablad.local import LocalService
from nablad.v1 import jobs_pb2
from nablad.v1.job_spec_pb2 import JobSpec

__all__ = ["Extent", "Soak", "run_soak"]


@dataclass(frozen=True)
class Extent:
    """Extent of a soak.

    Attributes:
        warm_up: Jobs before the first reading.
        jobs: Jobs after it.
        every: After so many jobs there is a reading.
    """

    warm_up: int = 10
    jobs: int = 200
    every: int = 20


@dataclass
class Soak:
    """Results of a soak.

    Attributes:
        readings: After the warm-up, and then in their order.
        job_seconds: Of each job from its submission to its end, those of the warm-up included.
        cleared: When all jobs and their models were deleted.
    """

    readings: list[Reading] = field(default_factory=list)
    job_seconds: list[float] = field(default_factory=list)
    cleared: Reading | None = None


def run_soak(extent: Extent, say: Callable[[str], None]) -> Soak:
    """Runs all jobs, one after the other, on a daemon of their own.

    Args:
        extent: How many.
        say: Is told how far it is.

    Raises:
        LocalServiceError: The daemon did not start.
        BenchmarkError: A job did not succeed.
    """
    soak, spec = Soak(), _spec()
    # A short path: Ray's sockets lie below it.
    with tempfile.TemporaryDirectory(prefix="s-", ignore_cleanup_errors=True) as folder:
        temporary = Path(folder)
        environment = {"TMPDIR": str(temporary)}
        with LocalService(cpus=cpus(), environment=environment) as daemon, daemon.client() as client:
            _soak(soak, extent, spec, daemon, client, temporary, say)
    return soak


def _soak(
    soak: Soak,
    extent: Extent,
    spec: JobSpec,
    daemon: LocalService,
    client: Client,
    temporary: Path,
    say: Callable[[str], None],
) -> None:
    for name, file in demo.FILES.items():
        client.add_dataset(name, [file])
    for number in range(1, extent.warm_up + extent.jobs + 1):
        soak.job_seconds.append(_run(client, spec))
        if number >= extent.warm_up and (number - extent.warm_up) % extent.every == 0:
            soak.readings.append(read_at_rest(daemon, temporary, number))
            say(f"{number} of {extent.warm_up + extent.jobs} jobs")
    for job in list(client.jobs()):
        client.delete_job(job.job_id)
        client.delete_model(job.model_id)
    soak.cleared = read_at_rest(daemon, temporary, extent.warm_up + extent.jobs)


def _spec() -> JobSpec:
    spec = load(demo.JOB_FILE)
    spec.training.epochs = 2
    return complete(spec)


def _run(client: Client, spec: JobSpec) -> float:
    """Seconds that a job took."""
    job_id = client.submit(spec).job_id
    for _ in client.watch(job_id):
        pass
    job = client.job(job_id)
    if job.state != jobs_pb2.JOB_STATE_SUCCEEDED:
        raise JobError(f"Job {job_id} should have succeeded, but ended otherwise: {job.reason}")
    return (job.end_time.ToNanoseconds() - job.create_time.ToNanoseconds()) / 1e9
