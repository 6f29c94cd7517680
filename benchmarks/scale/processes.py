"""A real parameter server and real workers, each in a process of its own, without Ray: what a step of theirs takes."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from benchmarks.errors import BenchmarkError
from benchmarks.scale import synthetic
from benchmarks.scale.quiet import quiet_index
from nablad.v1 import job_spec_pb2 as spec_pb

__all__ = ["EpochSteps", "quietest", "run", "started"]

_RUN_SECONDS = 120.0
_END_SECONDS = 10.0


@dataclass(frozen=True)
class EpochSteps:
    """The mean step of an epoch.

    Attributes:
        step_s: Seconds from one update to the next.
        worker_s: What a worker spends of them on each activity, as the mean over the workers.
        server_s: What the parameter server spends of them on each.
    """

    step_s: float
    worker_s: Mapping[str, float]
    server_s: Mapping[str, float]


def quietest(epochs: Sequence[EpochSteps]) -> EpochSteps:
    """One that was left alone by whatever else runs on the machine."""
    return epochs[quiet_index([epoch.step_s for epoch in epochs])]


def run(job: spec_pb.JobSpec, rows: int) -> list[EpochSteps]:
    """Trains on made-up rows.

    Args:
        job: Of `synthetic.spec`.
        rows: Of an epoch.

    Returns:
        The epochs that all workers were there for; without the first, which warms up.

    Raises:
        BenchmarkError: A process failed.
    """
    with tempfile.TemporaryDirectory(prefix="nablad-scale-") as name:
        folder = Path(name)
        message = folder / "assignment.pb"
        message.write_bytes(synthetic.assignment(job, rows, folder).SerializeToString())
        with (folder / "log").open("w+", encoding="utf-8") as log:
            epochs = _train(message, job.distribution.workers, log)
            if not epochs:
                log.seek(0)
                raise BenchmarkError(
                    f"{job.distribution.workers} workers should have made an epoch together and come to the end of "
                    f"their job, but did not: {log.read()}"
                )
    return epochs


def _train(message: Path, workers: int, log: IO[str]) -> list[EpochSteps]:
    """What the parameter server tells of the epochs that had all workers; nothing if it fails."""
    with ExitStack() as stack:
        server = stack.enter_context(started(["server", str(message)], log))
        assert server.stdout
        if address := server.stdout.readline().strip():
            _begin([stack.enter_context(started(["worker", address], log)) for _ in range(workers)])
        try:
            told, _ = server.communicate(timeout=_RUN_SECONDS)
        except subprocess.TimeoutExpired:
            return []
        totals = [json.loads(line) for line in told.splitlines()] if server.returncode == 0 else []
    return [
        _between(before, after, workers)
        for before, after in pairwise(totals)
        if before["workers"] == after["workers"] == workers
    ]


def _begin(workers: Sequence["subprocess.Popen[str]"]) -> None:
    """Lets them join when all are ready."""
    for worker in workers:
        assert worker.stdout
        worker.stdout.readline()
    for worker in workers:
        assert worker.stdin
        print(file=worker.stdin, flush=True)


def _between(before: dict[str, Any], after: dict[str, Any], workers: int) -> EpochSteps:
    """The mean step between two looks at the running totals."""
    steps = after["steps"] - before["steps"]

    def mean(name: str, parts: int = 1) -> dict[str, float]:
        return {key: (after[name][key] - before[name][key]) / steps / parts for key in after[name]}

    return EpochSteps(mean("step_s")["sum"], mean("worker_s", workers), mean("server_s"))


@contextmanager
def started(arguments: Sequence[str], log: IO[str], files: Sequence[int] = ()) -> Iterator["subprocess.Popen[str]"]:
    """A process of process.py; it gets a while to end by itself when the block ends, and then is ended.

    Args:
        arguments: Its role, and what that needs.
        log: For what it says on stderr.
        files: Open files that it inherits.
    """
    process = subprocess.Popen(
        # -P: a folder called `benchmarks` where the user happens to stand is not ours.
        [sys.executable, "-P", "-m", "benchmarks.scale.process", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        pass_fds=files,
    )
    try:
        yield process
        assert process.stdin
        process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
    finally:
        process.kill()
        with process:  # its pipes are closed, and it is waited for
            pass
