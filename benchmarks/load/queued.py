"""A queue of jobs that cannot start as long as something else runs."""

import os
import random
import time
from collections.abc import Iterator

from benchmarks.errors import BenchmarkError
from nablad import Client
from nablad.demo import digits
from nablad.jobspec import complete, load
from nablad.v1 import jobs_pb2
from nablad.v1.job_spec_pb2 import JobSpec

__all__ = ["Queue", "cpus"]

_PRIORITIES = range(-3, 4)
_LOOK_SECONDS = 0.2
_RUN_SECONDS = 300.0
_ENDED = (jobs_pb2.JOB_STATE_SUCCEEDED, jobs_pb2.JOB_STATE_FAILED, jobs_pb2.JOB_STATE_CANCELLED)


def cpus() -> int:
    """CPUs that the service has, and that every job asks for, the training as well as those that wait for its end."""
    return max(2, os.cpu_count() or 1)


class Queue:
    """Short jobs of various priorities, drawn from a fixed seed, each of which asks for all CPUs.

    Attributes:
        job_ids: Of those that wait, the oldest first.
    """

    def __init__(self) -> None:
        self.job_ids: list[str] = []
        self._specs = _specs()

    def next_spec(self) -> JobSpec:
        """Of the next one to be submitted."""
        return next(self._specs)

    def fill(self, client: Client, length: int) -> None:
        """Submits jobs until there are so many."""
        while len(self.job_ids) < length:
            self.job_ids.append(client.submit(self.next_spec()).job_id)

    def clear(self, client: Client) -> None:
        """Cancels and deletes all of them."""
        while self.job_ids:
            job_id = self.job_ids.pop()
            if client.job(job_id).state not in _ENDED:
                client.cancel(job_id)
            client.delete_job(job_id)

    def in_order(self, client: Client) -> list[str]:
        """Those that wait, in the order in which they have to start, each with its priority."""
        queued = client.jobs([jobs_pb2.JOB_STATE_QUEUED])
        age = {job_id: number for number, job_id in enumerate(self.job_ids)}
        return [_described(job) for job in sorted(queued, key=lambda job: (-job.spec.priority, age[job.job_id]))]

    def await_ends(self, client: Client, count: int) -> list[str]:
        """Waits until so many have run; gives them in the order in which they started, each with its priority.

        Raises:
            BenchmarkError: They did not run in time.
        """
        deadline = time.monotonic() + _RUN_SECONDS
        while len(ended := self._succeeded(client)) < count:
            if time.monotonic() > deadline:
                raise BenchmarkError(f"{count} jobs should have run in {_RUN_SECONDS:.0f} s, but {len(ended)} did")
            time.sleep(_LOOK_SECONDS)
        return [_described(job) for job in ended[:count]]

    def _succeeded(self, client: Client) -> list[jobs_pb2.Job]:
        ours = set(self.job_ids)
        ended = [job for job in client.jobs([jobs_pb2.JOB_STATE_SUCCEEDED]) if job.job_id in ours]
        return sorted(ended, key=lambda job: job.start_time.ToNanoseconds())


def _specs() -> Iterator[JobSpec]:
    generator = random.Random(4)  # noqa: S311 (nothing secret)
    spec = load(digits.JOB_FILE)
    spec.training.epochs = 1
    spec.distribution.workers = spec.distribution.micro_batches = cpus()
    completed = complete(spec)
    while True:
        completed.priority = generator.choice(_PRIORITIES)
        yield completed


def _described(job: jobs_pb2.Job) -> str:
    return f"{job.job_id} (priority {job.spec.priority})"
