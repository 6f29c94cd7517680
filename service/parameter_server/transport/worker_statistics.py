"""What each worker has contributed to an attempt, and how far it is behind the others."""

from collections.abc import Iterable
from typing import Final

from nablad.v1 import parameter_server_pb2 as ps_pb
from workers.runtime.process_usage import Usage

__all__ = ["WorkerStatistics", "enter_usage", "total"]

# No process of our time has used so many CPU seconds, or can address so many bytes.
_MOST_CPU_SECONDS: Final = 1e10
_MOST_BYTES: Final = 2.0**57


class WorkerStatistics:
    """What one worker, or several together, have contributed.

    Attributes:
        results: That were taken.
        samples: In these.
        lag_seconds: How long after the first results of their rounds they came, summed up.
    """

    def __init__(self) -> None:
        self.results = 0
        self.samples = 0
        self.lag_seconds = 0.0

    def add(self, samples: int, lag_seconds: float) -> None:
        """One more result was taken."""
        self.results += 1
        self.samples += samples
        self.lag_seconds += lag_seconds

    def figures(self, name: str, usage: Usage) -> ps_pb.WorkerFigures:
        """For metrics, with what the processes of those who contribute have used."""
        figures = ps_pb.WorkerFigures(
            worker_id=name, results=self.results, samples=self.samples, lag_seconds=self.lag_seconds
        )
        enter_usage(figures.process, usage)
        return figures


def total(usages: Iterable[Usage]) -> Usage:
    """What processes have used together, without those that say what no process can have used."""
    cpu_seconds = resident_memory_bytes = 0.0
    for usage in filter(_is_possible, usages):
        cpu_seconds += usage.cpu_seconds
        resident_memory_bytes += usage.resident_memory_bytes
    return Usage(cpu_seconds, resident_memory_bytes)


def enter_usage(process: ps_pb.ProcessFigures, usage: Usage) -> None:
    """Enters what processes have used, unless no process can have used this."""
    if _is_possible(usage):
        process.cpu_seconds = usage.cpu_seconds
        process.resident_memory_bytes = int(usage.resident_memory_bytes)


def _is_possible(usage: Usage) -> bool:
    return 0 <= usage.cpu_seconds < _MOST_CPU_SECONDS and 0 < usage.resident_memory_bytes < _MOST_BYTES
