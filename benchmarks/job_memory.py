"""The memory that a job of the widest network takes, beside what it may take."""

from dataclasses import dataclass
from typing import Any

from benchmarks.machine import Stage
from benchmarks.memory import MemoryWatch
from benchmarks.mnist_files import FirstRows
from benchmarks.service_jobs import running_service
from benchmarks.works import Work

__all__ = ["LIMITS", "Limit", "measure"]

_MB = 10**6


@dataclass(frozen=True)
class Limit:
    """What a process may take at most.

    Attributes:
        base: Bytes for Python, its libraries and Ray.
        weights: How often all weights and biases may lie in its memory.
        rows: Whether the rows of the data set may, too.
    """

    base: int
    weights: int
    rows: bool

    def bytes(self, weights_bytes: int, rows_bytes: int) -> int:
        """For one job."""
        return self.base + self.weights * weights_bytes + self.rows * rows_bytes


LIMITS = {
    "parameter server": Limit(120 * _MB, weights=4, rows=False),
    "worker": Limit(170 * _MB, weights=5, rows=True),
}


def measure(work: Work, rows: FirstRows, stage: Stage) -> dict[str, Any]:
    """Trains once while somebody looks at the processes; its speed is none to compare.

    Raises:
        JobError: The job failed.
    """
    stage.clear(f"Memory: {work.title}")
    spec, watch = work.spec(), MemoryWatch()
    with running_service({spec.data.train: rows.files(work.rows)}) as service:
        rows_bytes = service.client.dataset(spec.data.train).size_bytes
        with watch.watching():
            service.run(spec)
    return {
        "title": work.title,
        "weights_bytes": work.weights_bytes,
        "rows_bytes": rows_bytes,
        "processes": {
            role: {"largest": watch.largest(role), "limit": limit.bytes(work.weights_bytes, rows_bytes)}
            for role, limit in LIMITS.items()
        },
    }
