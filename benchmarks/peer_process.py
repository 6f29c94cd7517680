"""Runs a contestant in a process of its own, with as many BLAS threads as it is to have."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from benchmarks.contestants import Contestant
from benchmarks.errors import PeerError
from benchmarks.figures import Measurement
from benchmarks.peers.task import Task
from nablad.v1.job_spec_pb2 import JobSpec

__all__ = ["run_peer"]

# numpy and torch look at these when they load their BLAS.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_RUN_SECONDS = 600.0
_END_SECONDS = 10.0
_LOG_LINES_SHOWN = 20


def run_peer(contestant: Contestant, spec: JobSpec, folder: Path, rows: int) -> Measurement:
    """One run.

    Args:
        contestant: With a module of `benchmarks.peers`.
        spec: What to train, completed.
        folder: With the images and labels.
        rows: How many there are.

    Raises:
        PeerError: It failed, or took too long.
    """
    with tempfile.TemporaryDirectory(prefix="nablad-bench-") as name:
        task, result, log = (Path(name, file) for file in ("task.json", "result.json", "log"))
        Task(spec, folder, rows, contestant.processes, contestant.threads).write(task)
        with log.open("wb") as output:
            process = subprocess.Popen(
                # -P: a folder called `benchmarks` where the user happens to stand is not ours.
                [sys.executable, "-P", "-m", "benchmarks.peers", contestant.module, task, result],
                env=_environment(contestant.threads),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that it can be ended with all its children
            )
        try:
            process.wait(_RUN_SECONDS)
        except subprocess.TimeoutExpired:
            raise PeerError(f"{contestant.title} was not done after {_RUN_SECONDS:.0f} s. {_end_of(log)}") from None
        finally:
            _end(process)
        if process.returncode:
            raise PeerError(f"{contestant.title} ended with {process.returncode}. {_end_of(log)}")
        return Measurement(**json.loads(result.read_text(encoding="utf-8")))


def _environment(threads: int) -> dict[str, str]:
    return os.environ | dict.fromkeys(_THREAD_VARIABLES, str(threads)) | {"GLOO_SOCKET_IFNAME": "lo"}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends what is still there of it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)


def _end_of(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(["The end of its log:", *lines[-_LOG_LINES_SHOWN:]]) if lines else "Its log is empty."
