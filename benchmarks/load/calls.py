"""How long calls take: one client that makes one after the other, a few in a second."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import Self, TypeVar

import grpc

from benchmarks.load.queued import Queue
from nablad.v1 import jobs_pb2, jobs_pb2_grpc

__all__ = ["CallTimes", "Latencies", "make_calls"]

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
    """Of one kind of call, in seconds.

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
        """Of at least one call; each figure is one that was measured."""
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
