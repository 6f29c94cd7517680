"""Jobs through everything that the project is: client, gRPC, daemon, Ray, parameter server, workers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import JobError
from benchmarks.figures import Measurement
from benchmarks.step_profile import METRICS, Figures, StepProfile, read_figures, step_profile, steps, transports
from nablad import Client
from nablad.demo.daemon import Daemon
from nablad.demo.scrape import scrape
from nablad.v1 import jobs_pb2
from nablad.v1.job_spec_pb2 import JobSpec

__all__ = ["JobRun", "Service", "running_service"]


@dataclass(frozen=True)
class JobRun:
    """A job that succeeded.

    Attributes:
        epochs: The figures of every epoch, as its events told them.
        start_s: Seconds from its acceptance until the first worker was there and steps were made.
        profile: Where the time of its steps went, those of the first epoch left out, or of the first second.
        transports: Its workers by how weights and gradients reached them.
    """

    epochs: list[jobs_pb2.Progress]
    start_s: float
    profile: StepProfile
    transports: dict[str, int]

    @property
    def measurement(self) -> Measurement:
        """Its speeds and costs."""
        return Measurement(
            [epoch.samples_per_second for epoch in self.epochs], [epoch.training_cost for epoch in self.epochs]
        )


@dataclass(frozen=True)
class Service:
    """A running service that has the data sets it was started with."""

    client: Client
    metrics_url: str

    def run(self, spec: JobSpec) -> JobRun:
        """Runs a job to its end.

        Raises:
            JobError: It did not succeed.
        """
        job_id = self.client.submit(spec).job_id
        epochs: list[jobs_pb2.Progress] = []
        steady: Figures = {}
        used: dict[str, int] = {}
        for news in self.client.watch(job_id):
            if isinstance(news, jobs_pb2.Event) and news.WhichOneof("what") == "epoch_end":
                epochs.append(news.epoch_end)
                if steps(steady) < epochs[0].step:  # the page may be a second behind the events
                    steady = self._look(job_id)
                    used = transports(steady) or used
        job = self.client.job(job_id)
        if job.state != jobs_pb2.JOB_STATE_SUCCEEDED:
            raise JobError(f"The job should have succeeded, but ended otherwise: {job.reason}")
        return JobRun(
            epochs,
            (job.start_time.ToDatetime() - job.create_time.ToDatetime()).total_seconds(),
            step_profile(self._look(job_id), steady, spec.distribution.workers),
            used,
        )

    def _look(self, job_id: str) -> Figures:
        return read_figures(scrape(self.metrics_url, job_id, METRICS))


@contextmanager
def running_service(datasets: dict[str, Sequence[Path]]) -> Iterator[Service]:
    """A service of our own for as long as the block lasts.

    Args:
        datasets: The files of each data set that it is to have, by name.
    """
    with Daemon() as daemon, Client(daemon.address) as client:
        for name, files in datasets.items():
            client.add_dataset(name, list(files))
        yield Service(client, daemon.metrics_url)
