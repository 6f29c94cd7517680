"""Memory of the processes of a job, from what the kernel says of them while it runs, beside what they may take.

Resident memory counts every page that a process has mapped and touched: its own, and in full those that it shares, such
as regions for weights and gradients or the files of a data set. The proportional size counts a page that k processes
share as 1/k of one in each of them, so that the sizes of processes may be added.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import Stage
from benchmarks.mnist_files import FirstRows
from benchmarks.service_jobs import running_service
from benchmarks.works import Work

__all__ = [
    "LIMITS",
    "ROLES",
    "Limit",
    "MemoryWatch",
    "ProcessMemory",
    "descendants",
    "figure",
    "measure",
    "process_memory",
    "role_of",
]

# How Ray names the processes of a job, by what they are.
ROLES = {"parameter server": b"ray::_ParameterServerProcess", "worker": b"ray::_WorkerProcess"}

_PROC = Path("/proc")
_LOOK_SECONDS = 0.05
_PER_KIB = 1024


@dataclass(frozen=True)
class ProcessMemory:
    """Memory of one process, in bytes.

    Attributes:
        peak: The largest resident memory that it ever had.
        proportional: Its present memory, pages that it shares counted in parts.
    """

    peak: int
    proportional: int


@dataclass
class MemoryWatch:
    """Watch over the processes of a job: the largest figures of each, by role and process id."""

    seen: dict[str, dict[int, ProcessMemory]] = field(default_factory=lambda: {role: {} for role in ROLES})

    def look(self, root: int, proc: Path = _PROC) -> None:
        """Adds how it is now, among the descendants of a process."""
        for pid in descendants(root, proc):
            # One that ends while it is looked at has been seen before.
            with suppress(OSError):
                if role := role_of(pid, proc):
                    now, before = process_memory(pid, proc), self.seen[role].get(pid, ProcessMemory(0, 0))
                    self.seen[role][pid] = ProcessMemory(
                        max(before.peak, now.peak), max(before.proportional, now.proportional)
                    )

    def largest(self, role: str) -> ProcessMemory:
        """Over all processes of a role, of which at least one was seen."""
        seen = self.seen[role].values()
        return ProcessMemory(max(one.peak for one in seen), max(one.proportional for one in seen))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Looks at our own descendants, again and again until the block ends."""
        over = threading.Event()
        thread = threading.Thread(target=self._look_until, args=(over,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _look_until(self, over: threading.Event) -> None:
        while not over.wait(_LOOK_SECONDS):
            self.look(os.getpid())


def descendants(root: int, proc: Path = _PROC) -> Iterator[int]:
    """The processes that descend from one."""
    parents: dict[int, int] = {}
    for folder in proc.glob("[0-9]*"):
        with suppress(OSError):
            # The command's name, in brackets, may hold anything.
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    for pid in parents:
        ancestor = pid
        while ancestor in parents and ancestor != root:
            ancestor = parents[ancestor]
        if ancestor == root and pid != root:
            yield pid


def role_of(pid: int, proc: Path = _PROC) -> str | None:
    """Returns the role of a process in its job, if it belongs to one."""
    command = (proc / str(pid) / "cmdline").read_bytes()
    return next((role for role, name in ROLES.items() if command.startswith(name)), None)


def process_memory(pid: int, proc: Path = _PROC) -> ProcessMemory:
    """The figures of a process."""
    return ProcessMemory(figure(pid, "status", "VmHWM:", proc), figure(pid, "smaps_rollup", "Pss:", proc))


def figure(pid: int, file: str, name: str, proc: Path = _PROC) -> int:
    """One figure of a process, in bytes, by its name in one of the process's files.

    Raises:
        ProcessLookupError: The process has ended.
    """
    path = proc / str(pid) / file
    for line in path.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * _PER_KIB
    raise ProcessLookupError(f"{path} says no {name.rstrip(':')}: the process has ended")


_MB = 10**6


@dataclass(frozen=True)
class Limit:
    """Limit of the memory of a process.

    Attributes:
        base: Bytes for Python, its libraries and Ray.
        weights: How often all weights and biases may lie in its memory.
        rows: Whether the rows of the data set may, too.
    """

    base: int
    weights: int
    rows: bool

    def bytes(self, weights_bytes: int, rows_bytes: int) -> int:
        """Returns the limit for one job, in bytes."""
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
