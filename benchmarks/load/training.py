"""A training that takes all CPUs and does not end, for whatever else is to be seen beside it."""

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.errors import JobError
from benchmarks.load.calls import cpus
from benchmarks.mnist_files import FirstRows
from benchmarks.works import PAPER_500
from nablad import Client, demo
from nablad.local import LocalService
from nablad.v1 import jobs_pb2
from nablad.v1.job_spec_pb2 import JobSpec

__all__ = ["WATCH_INTERVAL_SECONDS", "service", "start_training"]

WATCH_INTERVAL_SECONDS = 5.0
"""Shortest time between two messages to a watcher, in seconds: what a thousand of them beside a training need."""

_FOREVER = 1_000_000


@contextmanager
def service(rows: FirstRows) -> Iterator[tuple[LocalService, Client]]:
    """A daemon of its own, with the training's data and the digits, set up for a crowd as docs/operations.md says."""
    options = ("--watch-interval", str(WATCH_INTERVAL_SECONDS))
    with LocalService(cpus=cpus(), options=options) as daemon, daemon.client() as client:
        client.add_dataset(_spec().data.train, list(rows.files(PAPER_500.rows)))
        for name, file in demo.FILES.items():
            client.add_dataset(name, [file])
        yield daemon, client


def _spec() -> JobSpec:
    """Returns the spec of a job that does not end by itself, and has all CPUs."""
    spec = PAPER_500.spec(epochs=_FOREVER)
    spec.distribution.workers = spec.distribution.micro_batches = cpus()
    return spec


def start_training(client: Client) -> str:
    """Gives the job's id after its first epoch."""
    job_id = client.submit(_spec()).job_id
    for news in client.watch(job_id):
        if isinstance(news, jobs_pb2.Event) and news.HasField("epoch_end"):
            return job_id
    raise JobError(f"The training should go on for ever, but has ended: {client.job(job_id).reason}")
