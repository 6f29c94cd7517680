"""Statistics of an attempt, for metrics: running totals of the parameter server and of each worker."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from nablad.v1 import parameter_server_pb2 as ps_pb
from workers.runtime.process_statistics import Usage
from workers.transport.frames import ACTIVITIES as WORKER_ACTIVITIES
from workers.transport.frames import TRANSPORTS
from workers.transport.tickets import Rejection

__all__ = ["ACTIVITIES", "STEP_CORES", "AttemptCounters", "WorkerCounters", "total_usage", "write_usage"]

ACTIVITIES = ("waiting", "receiving", "inspecting", "reducing", "updating", "dealing", "booking")
"""Activities that a parameter server's time goes into: waiting for results, reading them, checking them, adding
gradients, the update of the weights, sending tickets and weights, and recording metrics, digests and checkpoints."""

STEP_CORES: Final = ("native", "python")
"""Codes that make steps: the native step core, and the one with a message for each result."""

# No process of our time has used so many CPU seconds, or can address so many bytes.
_MOST_CPU_SECONDS: Final = 1e10
_MOST_BYTES: Final = 2.0**57


class AttemptCounters:
    """Running totals of an attempt.

    Attributes:
        workers_lost: Number of workers that were lost.
        core_steps: Number of steps by the code that made them, one of STEP_CORES.
        dropped_micro_batches: Number of micro-batches that were dropped, because their results did not come in time.
    """

    def __init__(self) -> None:
        self.workers_lost = 0
        self.core_steps = dict.fromkeys(STEP_CORES, 0)
        self.dropped_micro_batches = 0
        self._worker_seconds = dict.fromkeys(WORKER_ACTIVITIES, 0.0)
        self._evaluations = 0
        self._evaluation_seconds = 0.0

    def add_evaluation(self, seconds: float) -> None:
        """Counts an evaluation, for which the steps stood still for so many seconds."""
        self._evaluations += 1
        self._evaluation_seconds += seconds

    def add_worker_seconds(self, seconds: Sequence[float]) -> None:
        """Adds the seconds, by activity, that a worker had reported when it was removed."""
        _add_seconds(self._worker_seconds, seconds)

    def message(
        self,
        worker_seconds: Iterable[Sequence[float]],
        server_seconds: Mapping[str, float],
        transports: Iterable[str],
        rejected: Mapping[Rejection, int],
    ) -> ps_pb.AttemptStatistics:
        """Returns the present totals as a message.

        Args:
            worker_seconds: Seconds by activity, as each present worker reported them.
            server_seconds: Seconds of the parameter server by activity.
            transports: Transport of each present worker.
            rejected: Number of rejected results by reason.
        """
        all_seconds = self._worker_seconds.copy()
        for seconds in worker_seconds:
            _add_seconds(all_seconds, seconds)
        return ps_pb.AttemptStatistics(
            worker_seconds=all_seconds,
            server_seconds=server_seconds,
            rejected={rejection.name.lower(): count for rejection, count in rejected.items()},
            workers_lost=self.workers_lost,
            dropped_micro_batches=self.dropped_micro_batches,
            transport_workers=dict.fromkeys(TRANSPORTS, 0) | Counter(transports),
            evaluations=self._evaluations,
            evaluation_seconds=self._evaluation_seconds,
            core_steps=self.core_steps,
        )


class WorkerCounters:
    """Running totals of one worker, or of several together.

    Attributes:
        results: Number of results that were accepted.
        samples: Number of samples in these.
        lag_seconds: Sum of the times from the first result of a round to the worker's own, in seconds.
    """

    def __init__(self) -> None:
        self.results = 0
        self.samples = 0
        self.lag_seconds = 0.0

    def add_results(self, results: int, samples: int, lag_seconds: float) -> None:
        """Counts results that were accepted, with all their samples and lags."""
        self.results += results
        self.samples += samples
        self.lag_seconds += lag_seconds

    def message(self, name: str, usage: Usage) -> ps_pb.WorkerStatistics:
        """Returns the totals as a message, with the usage of the processes that they belong to."""
        statistics = ps_pb.WorkerStatistics(
            worker_id=name, results=self.results, samples=self.samples, lag_seconds=self.lag_seconds
        )
        write_usage(statistics.process, usage)
        return statistics


def total_usage(usages: Iterable[Usage]) -> Usage:
    """Returns the sum of usages, without those that no process can have."""
    cpu_seconds = resident_memory_bytes = 0.0
    for usage in filter(_is_possible, usages):
        cpu_seconds += usage.cpu_seconds
        resident_memory_bytes += usage.resident_memory_bytes
    return Usage(cpu_seconds, resident_memory_bytes)


def write_usage(process: ps_pb.ProcessStatistics, usage: Usage) -> None:
    """Writes a usage to a message, unless no process can have it."""
    if _is_possible(usage):
        process.cpu_seconds = usage.cpu_seconds
        process.resident_memory_bytes = int(usage.resident_memory_bytes)


def _is_possible(usage: Usage) -> bool:
    return 0 <= usage.cpu_seconds < _MOST_CPU_SECONDS and 0 < usage.resident_memory_bytes < _MOST_BYTES


def _add_seconds(total: dict[str, float], seconds: Sequence[float]) -> None:
    """Adds to the activities' totals; leaves out what cannot be a duration."""
    for activity, value in zip(WORKER_ACTIVITIES, seconds, strict=False):
        if 0 < value < math.inf:
            total[activity] += value
