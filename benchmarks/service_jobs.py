"""Jobs through everything that the project is: client, gRPC, daemon, Ray, parameter server, workers.

The time of their steps is taken from the service's /metrics.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.errors import JobError
from benchmarks.figures import Measurement
from nablad import Client
from nablad.demo import scrape
from nablad.local import LocalService
from nablad.v1 import jobs_pb2
from nablad.v1.job_spec_pb2 import JobSpec

__all__ = [
    "METRICS",
    "Figures",
    "JobRun",
    "Service",
    "StepProfile",
    "read_figures",
    "running_service",
    "step_profile",
    "steps",
    "transports",
]

Figures = Mapping[tuple[str, str], float]  # by name of the metric, and activity or transport

_TRANSPORT_WORKERS = "nablad_job_transport_workers"
_WORKER_SECONDS = "nablad_job_worker_seconds_total"
_SERVER_SECONDS = "nablad_job_server_seconds_total"
_STEP_SECONDS = "nablad_job_step_seconds_sum"
_STEPS = "nablad_job_step_seconds_count"
METRICS = (_TRANSPORT_WORKERS, _WORKER_SECONDS, _SERVER_SECONDS, _STEP_SECONDS, _STEPS)

# The activities of a worker that are its own work and would remain if messages took no time.
_OWN_WORK = ("gathering", "computing")


@dataclass(frozen=True)
class StepProfile:
    """A mean step of a job.

    Attributes:
        step_us: Microseconds from one update to the next.
        worker_us: Of them, those that a worker spends on each activity, as the mean over the workers.
        server_us: Those that the parameter server spends on each.
    """

    step_us: float
    worker_us: dict[str, float]
    server_us: dict[str, float]

    @property
    def messages_us(self) -> float:
        """Time of a step without a worker's own work, in microseconds."""
        return self.step_us - sum(self.worker_us.get(activity, 0.0) for activity in _OWN_WORK)


def read_figures(lines: Iterable[str]) -> Figures:
    """The samples of one job, whatever activities and transports there are."""
    figures: dict[tuple[str, str], float] = defaultdict(float)
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            label = sample.labels.get("activity") or sample.labels.get("transport", "")
            figures[sample.name, label] += sample.value
    return figures


def step_profile(end: Figures, start: Figures, workers: int) -> StepProfile:
    """Profiles the steps between two readings; all steps to the end, if there are none between them.

    Args:
        end: What had been counted at the end.
        start: What had been counted when the steps became steady.
        workers: Of the job.
    """
    if steps(end) == steps(start):
        start = {}
    spent = {key: value - start.get(key, 0.0) for key, value in end.items()}
    per_step_us = 1e6 / spent[_STEPS, ""]
    return StepProfile(
        spent[_STEP_SECONDS, ""] * per_step_us,
        {activity: s * per_step_us / workers for (name, activity), s in spent.items() if name == _WORKER_SECONDS},
        {activity: s * per_step_us for (name, activity), s in spent.items() if name == _SERVER_SECONDS},
    )


def steps(figures: Figures) -> float:
    """Returns the number of steps that are counted."""
    return figures.get((_STEPS, ""), 0.0)


def transports(figures: Figures) -> dict[str, int]:
    """The workers of the job by transport, those transports left out that none uses."""
    return {
        transport: int(workers)
        for (name, transport), workers in figures.items()
        if name == _TRANSPORT_WORKERS and workers
    }


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
            [epoch.samples_per_second for epoch in self.epochs], [epoch.training.cost for epoch in self.epochs]
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
def running_service(
    datasets: Mapping[str, Sequence[Path]], *, workers: int = 2, environment: Mapping[str, str] | None = None
) -> Iterator[Service]:
    """A service of our own for as long as the block lasts.

    Args:
        datasets: The files of each data set that it is to have, by name.
        workers: Most workers of a job; there may be more of them than CPUs.
        environment: Further environment variables of its processes.
    """
    cpus = max(workers, os.cpu_count() or 1)
    with LocalService(cpus=cpus, environment=environment) as local, local.client() as client:
        for name, files in datasets.items():
            client.add_dataset(name, list(files))
        yield Service(client, local.metrics_url)
