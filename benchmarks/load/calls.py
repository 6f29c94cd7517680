"""A queue of jobs that cannot start as long as something else runs, and how long calls take beside it."""

import math
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Self, TypeVar

import grpc

from benchmarks.errors import BenchmarkError
from nablad import Client, demo
from nablad.jobspec import complete, load
from nablad.v1 import jobs_pb2, jobs_pb2_grpc
from nablad.v1.job_spec_pb2 import JobSpec

__all__ = ["CallTimes", "Latencies", "Queue", "cpus", "make_calls"]

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
        """Returns the spec of the next job to be submitted."""
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
    spec = load(demo.JOB_FILE)
    spec.training.epochs = 1
    spec.distribution.workers = spec.distribution.micro_batches = cpus()
    completed = complete(spec)
    while True:
        completed.priority = generator.choice(_PRIORITIES)
        yield completed


def _described(job: jobs_pb2.Job) -> str:
    return f"{job.job_id} (priority {job.spec.priority})"


_Response = TypeVar("_Response")

# So seldom that the calls are not a load themselves: each job that is submitted has the whole queue looked at.
_ROUND_SECONDS = 0.25
_WHOLE_LIST_EVERY = 4
_DEFAULT_PAGE, _LARGEST_PAGE = 50, 1000
_DEADLINE_SECONDS = 30.0

CallTimes = dict[str, list[float]]
"""Seconds of each call, by what it was."""


@dataclass(frozen=True)
class Latencies:
    """Latencies of one kind of call, in seconds.

    Attributes:
        calls: How many there were.
        p50: At least half of the calls were not longer.
        p99: At least 99 of 100 calls were not longer.
        longest: Of all.
    """

    calls: int
    p50: float
    p99: float
    longest: float

    @classmethod
    def of(cls, seconds: list[float]) -> Self:
        """Returns the latencies of at least one call; each figure is one that was measured."""
        ordered = sorted(seconds)
        p50, p99 = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.99))
        return cls(len(ordered), p50, p99, ordered[-1])


def make_calls(address: str, training: str, queue: Queue, seconds: float) -> CallTimes:
    """Submits jobs, gets the one that trains or one that waits, and lists them, in turns.

    Args:
        address: Of the service.
        training: Id of the job that trains.
        queue: Gets the jobs that are submitted.
        seconds: How long.
    """
    times: CallTimes = {"submit": [], "get": [], f"list {_DEFAULT_PAGE}": [], f"list {_LARGEST_PAGE:,}": []}
    wanted = cycle([training, *queue.job_ids])
    with grpc.insecure_channel(address) as channel:
        stub = jobs_pb2_grpc.JobServiceStub(channel)
        begun = time.monotonic()
        for number in range(int(seconds / _ROUND_SECONDS)):
            time.sleep(max(begun + number * _ROUND_SECONDS - time.monotonic(), 0))
            request = jobs_pb2.CreateJobRequest(spec=queue.next_spec())
            queue.job_ids.append(_timed(times["submit"], stub.CreateJob, request).job.job_id)
            _timed(times["get"], stub.GetJob, jobs_pb2.GetJobRequest(job_id=next(wanted)))
            _list(times, stub, _DEFAULT_PAGE)
            if number % _WHOLE_LIST_EVERY == 0:
                _list(times, stub, _LARGEST_PAGE)
    return times


def _list(times: CallTimes, stub: "jobs_pb2_grpc.JobServiceStub", size: int) -> None:
    _timed(times[f"list {size:,}"], stub.ListJobs, jobs_pb2.ListJobsRequest(page_size=size))


def _timed(times: list[float], call: Callable[..., _Response], request: object) -> _Response:
    begun = time.perf_counter()
    response = call(request, timeout=_DEADLINE_SECONDS)
    times.append(time.perf_counter() - begun)
    return response
