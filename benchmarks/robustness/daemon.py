"""A daemon of one's own, with every process that it starts."""

import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import BenchmarkError

__all__ = ["Daemon", "start_daemon"]

_MARK = "NABLAD_TEST_MARK"
_READY = "nablad: ready"
_START_SECONDS = 60
_STOP_SECONDS = 40
_GONE_SECONDS = 60


@dataclass
class Daemon:
    """A running `nablad serve`.

    Attributes:
        process: Of the daemon.
        mark: What every process below it carries in its environment.
        data_dir: Its data directory.
        address: Of the gRPC API.
        metrics_url: Of the page /metrics.
        log: What it wrote to standard error.
    """

    process: subprocess.Popen[str]
    mark: str
    data_dir: Path
    address: str
    metrics_url: str
    log: Path

    def processes(self) -> dict[int, str]:
        """Command lines by process id: the daemon and everything that it started."""
        return marked_processes(self.mark)

    def wait_until_gone(self, pattern: str = "") -> None:
        """Waits until processes have ended whose command lines match."""
        for pid, line in self.processes().items():
            if not re.search(pattern, line):
                continue
            try:
                ended = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            assert select.select([ended], [], [], _GONE_SECONDS)[0], line
            os.close(ended)

    def stop(self) -> int:
        """SIGTERM; gives the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL, of the daemon alone."""
        self.process.kill()
        self.wait()

    def wait(self, seconds: float = _STOP_SECONDS) -> int:
        """Waits for its end; gives the exit code."""
        # Its output is not waited for: a process that it left behind may hold it open.
        self.process.wait(seconds)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return self.process.returncode


def start_daemon(
    data_dir: Path, log: Path, mark: str, *options: str, environment: Mapping[str, str] | None = None
) -> Daemon:
    """Starts a daemon and waits until it is ready.

    Args:
        data_dir: Its data directory.
        log: Where its standard error goes, after what is there already.
        mark: What its processes are found by.
        options: Of `nablad serve`. Those that come twice count as they are given here.
        environment: Variables that it gets on top of this process's.

    Raises:
        BenchmarkError: It did not become ready.
    """
    command = [sys.executable, "-m", "nablad", "serve", "--data-dir", str(data_dir)]
    command += ["--address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0", *options]
    with log.open("a") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **(environment or {}), _MARK: mark},
            start_new_session=True,
        )
    said = lines_until(process, _READY, _START_SECONDS)
    if _READY not in said:
        process.kill()
        process.wait()
        raise BenchmarkError(f"The daemon did not start; it said {said} and logged:\n{log.read_text()[-5000:]}")
    said_after = {line.split(" on ")[0]: line.split(" on ")[1] for line in said if " on " in line}
    return Daemon(process, mark, data_dir, said_after["nablad: listening"], said_after["nablad: metrics"], log)


def marked_processes(mark: str) -> dict[int, str]:
    """Command lines by process id of all processes that carry the mark in their environment."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            if f"{_MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_text(encoding="utf-8").replace("\0", " ")
        except OSError:  # it ended in the meantime
            continue
    return found


def lines_until(process: "subprocess.Popen[str]", ready: str, seconds: float) -> list[str]:
    """What a process says until it says that it is ready, ends, or takes too long and is killed."""
    assert process.stdout is not None
    lines: list[str] = []
    killer = threading.Timer(seconds, process.kill)
    killer.start()
    for line in process.stdout:
        lines.append(line.strip())
        if ready in lines[-1]:
            break
    killer.cancel()
    return lines
