"""A crowd of watchers, in a few processes of its own."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from benchmarks.errors import BenchmarkError
from benchmarks.load.watchers import Heard

__all__ = ["Crowd", "CrowdSize", "watching"]

_END_SECONDS = 60.0


@dataclass(frozen=True)
class CrowdSize:
    """Size of a crowd of watchers.

    Attributes:
        watchers: All of them.
        silent: Those of them that never read.
        processes: That they are spread over, evenly.
    """

    watchers: int
    silent: int
    processes: int = 2

    def of_process(self, number: int) -> tuple[int, int]:
        """Readers and silent ones in one of the processes, counted from 0."""
        readers, silent = self.watchers - self.silent, self.silent
        return _share(readers, self.processes, number), _share(silent, self.processes, number)


@dataclass
class Crowd:
    """Watchers at work.

    Attributes:
        pids: Of their processes.
        heard: What they have heard, once they have ended.
    """

    pids: list[int]
    heard: list[Heard] = field(default_factory=list)


@contextmanager
def watching(address: str, job_id: str, from_event: int, size: CrowdSize) -> Iterator[Crowd]:
    """Watches a job until the block ends; the block begins when every reader has heard something.

    Raises:
        BenchmarkError: The watchers did not get so far.
    """
    processes = [_start(address, job_id, from_event, *size.of_process(number)) for number in range(size.processes)]
    try:
        for process in processes:
            _await_ready(process)
        crowd = Crowd([process.pid for process in processes])
        yield crowd
        crowd.heard += [_end(process) for process in processes]
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                process.kill()
            process.communicate()


def _start(address: str, job_id: str, from_event: int, readers: int, silent: int) -> "subprocess.Popen[str]":
    arguments: Sequence[str] = [address, job_id, *map(str, (from_event, readers, silent))]
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load.watchers", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _await_ready(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    if (said := process.stdout.readline().strip()) != "ready":
        raise BenchmarkError(f"The watchers should have become ready, but ended with code {process.wait()}: {said}")


def _end(process: "subprocess.Popen[str]") -> Heard:
    said, _ = process.communicate(timeout=_END_SECONDS)
    return Heard(**json.loads(said))


def _share(count: int, parts: int, number: int) -> int:
    return count // parts + (number < count % parts)
