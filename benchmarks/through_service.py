"""Jobs through everything that the project is: client, gRPC, daemon, Ray, parameter server, workers."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from benchmarks import mnist_files
from nablad import Client
from nablad.demo.daemon import Daemon
from nablad.demo.scrape import scrape
from nablad.v1 import jobs_pb2
from nablad.v1.job_spec_pb2 import JobSpec

__all__ = ["JobRun", "Service", "mnist_service"]

_WORKER_SECONDS = "nablad_job_worker_seconds_total"
_STEP_SECONDS = "nablad_job_step_seconds_sum"
_STEPS = "nablad_job_step_seconds_count"


@dataclass(frozen=True)
class JobRun:
    """A job that succeeded.

    Attributes:
        epochs: The figures of every epoch, as its events told them.
        start_s: Seconds from its acceptance until the first worker had joined and steps were made.
        step_ms: Mean milliseconds of a step, and of it what a worker spends computing, waiting and exchanging.
    """

    epochs: list[jobs_pb2.Progress]
    start_s: float
    step_ms: dict[str, float]


@dataclass(frozen=True)
class Service:
    """A running service that has MNIST."""

    client: Client
    metrics_url: str

    def run(self, spec: JobSpec) -> JobRun:
        """Runs a job to its end.

        Raises:
            RuntimeError: It did not succeed.
        """
        job_id = self.client.submit(spec).job_id
        events = [news for news in self.client.watch(job_id) if isinstance(news, jobs_pb2.Event)]
        job = self.client.job(job_id)
        if job.state != jobs_pb2.JOB_STATE_SUCCEEDED:
            raise RuntimeError(f"The job should have succeeded, but ended otherwise: {job.reason}")
        return JobRun(
            [event.epoch_end for event in events if event.WhichOneof("what") == "epoch_end"],
            (job.start_time.ToDatetime() - job.create_time.ToDatetime()).total_seconds(),
            self._step_ms(job),
        )

    def _step_ms(self, job: jobs_pb2.Job) -> dict[str, float]:
        sums: dict[str, float] = defaultdict(float)
        lines = scrape(self.metrics_url, job.job_id, (_WORKER_SECONDS, _STEP_SECONDS, _STEPS))
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            for sample in family.samples:
                sums[sample.labels.get("activity", sample.name)] += sample.value
        steps, workers = sums.pop(_STEPS), job.spec.distribution.workers
        step_ms = {"step": 1000 * sums.pop(_STEP_SECONDS) / steps}
        return step_ms | {activity: 1000 * seconds / steps / workers for activity, seconds in sums.items()}


@contextmanager
def mnist_service(folder: Path) -> Iterator[Service]:
    """A service of our own with the MNIST files of a folder, for as long as the block lasts."""
    with Daemon() as daemon, Client(daemon.address) as client:
        for name, files in (("mnist-train", mnist_files.TRAIN), ("mnist-test", mnist_files.TEST)):
            client.add_dataset(name, [folder / file for file in files])
        yield Service(client, daemon.metrics_url)
