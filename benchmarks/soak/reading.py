"""Readings of what a service uses of its machine at one moment."""

import os
import stat
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.load.windows import descriptors, resident_bytes, threads
from nablad.local import LocalService, pids_of

__all__ = ["Files", "Processes", "Reading", "read_at_rest"]

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (only looked at)
_REST_SECONDS = 30.0
_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Processes:
    """Use of resources by one process, or by several together.

    Attributes:
        processes: How many there are.
        resident_bytes: Memory that is in RAM; what they share counts in each.
        descriptors: Open ones.
        threads: That run or wait.
    """

    processes: int
    resident_bytes: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pids: Iterable[int]) -> "Processes":
        """Those that are given, all of them alive."""
        alive = list(pids)
        return cls(len(alive), sum(map(resident_bytes, alive)), descriptors(alive), sum(map(threads, alive)))


@dataclass(frozen=True)
class Files:
    """Files of one place: how many, and their bytes together."""

    files: int
    bytes: int

    @classmethod
    def below(cls, folder: Path, pattern: str = "*") -> "Files":
        """Those of this user in a folder, and in the folders in it, whose names have a pattern."""
        found = [path.lstat() for path in folder.rglob(pattern)]
        sizes = [status.st_size for status in found if stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid()]
        return cls(len(sizes), sum(sizes))


@dataclass(frozen=True)
class Reading:
    """Everything.

    Attributes:
        jobs: That had run until then.
        processes: By whose they are.
        files: By where they are.
    """

    jobs: int
    processes: dict[str, Processes]
    files: dict[str, Files]

    def figures(self) -> dict[str, int]:
        """One by one, by what they are."""
        groups: dict[str, Processes | Files] = {**self.processes, **self.files}
        return {
            f"{group}: {name.replace('_', ' ')}": count
            for group, counts in groups.items()
            for name, count in asdict(counts).items()
        }


def read_at_rest(daemon: LocalService, temporary: Path, jobs: int) -> Reading:
    """Reads the service when the processes of the last job have gone.

    Args:
        daemon: Of the service; no job runs.
        temporary: What its processes have for a temporary folder.
        jobs: That have run until now.

    Raises:
        BenchmarkError: They have not gone in time.
    """
    deadline = time.monotonic() + _REST_SECONDS
    while True:
        try:
            reading = _read(daemon, temporary, jobs)
        except OSError:  # a process ended, or a file was removed, while it was looked at
            reading = None
        if reading and reading.processes["Ray actors"].processes == 0:
            return reading
        if time.monotonic() > deadline:
            raise BenchmarkError(f"Processes of jobs are still there {_REST_SECONDS:.0f} s after the last job's end")
        time.sleep(_LOOK_SECONDS)


def _read(daemon: LocalService, temporary: Path, jobs: int) -> Reading:
    all_of_them = daemon.processes()
    actors = pids_of("parameter server", all_of_them) | pids_of("worker", all_of_them)
    groups = {
        "daemon": pids_of("service", all_of_them),
        "cluster process": pids_of("cluster process", all_of_them),
        "Ray actors": actors,
    }
    groups["Ray"] = all_of_them.keys() - set().union(*groups.values())
    data = daemon.data_directory
    return Reading(
        jobs,
        {who: Processes.of(pids) for who, pids in groups.items()},
        {
            "shared memory": Files.below(_SHARED_MEMORY),
            **{f"{folder}/": Files.below(data / folder) for folder in ("checkpoints", "models", "staging")},
            "database": Files.below(data, "nablad.sqlite3*"),
            "Ray's logs": Files.below(temporary),
        },
    )
