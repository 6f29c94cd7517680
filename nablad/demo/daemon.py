"""A service of one's own, for as long as a block lasts."""

import os
import queue
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO, Self

_ADDRESS = "nablad: listening on "
_METRICS = "nablad: metrics on "
_READY = "nablad: ready"
_LOG_LINES_SHOWN = 15


class DaemonError(Exception):
    """The service did not come up; says what its log says."""


class Daemon:
    """A service with an empty data directory on free ports of this machine, in a process of its own.

    Leaving the block stops it and removes all that it has written.

    Attributes:
        address: ``host:port`` of its gRPC, once the block is entered.
        metrics_url: Where Prometheus would scrape it, once the block is entered.
    """

    address = ""
    metrics_url = ""

    def __init__(self, command: Sequence[str] | None = None, *, start_s: float = 90.0, stop_s: float = 30.0) -> None:
        """Does not start it yet.

        Args:
            command: What runs a service; its options are appended.
            start_s: Seconds that it may take to come up.
            stop_s: Seconds that it may take to end by itself after SIGTERM.
        """
        # -P: a folder called `nablad` where the user happens to stand is not ours.
        self._command = command or (sys.executable, "-P", "-m", "nablad", "serve")
        self._start_s = start_s
        self._stop_s = stop_s

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix="nabla-demo-")
        self._log = Path(self._directory.name, "nablad.log")
        options = ("--data-dir", str(Path(self._directory.name, "data")), "--cpus", str(max(2, os.cpu_count() or 1)))
        ports = ("--address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  # our own command
                [*self._command, *options, *ports],
                env={name: value for name, value in os.environ.items() if not name.startswith("NABLAD_")},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops the service in good order
            )
        try:
            self._await_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self._stop_s)
        finally:  # also at a second Ctrl-C
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._directory.cleanup()

    def _await_ready(self) -> None:
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        Thread(target=_pass_on, args=(self._process.stdout, lines), daemon=True).start()
        deadline_s = time.monotonic() + self._start_s
        while (line := self._next_line(lines, deadline_s)) != _READY:
            if line.startswith(_ADDRESS):
                self.address = line.removeprefix(_ADDRESS)
            elif line.startswith(_METRICS):
                self.metrics_url = line.removeprefix(_METRICS)

    def _next_line(self, lines: "queue.SimpleQueue[str | None]", deadline_s: float) -> str:
        try:
            line = lines.get(timeout=max(deadline_s - time.monotonic(), 0))
        except queue.Empty:
            raise DaemonError(f"The service was not ready after {self._start_s:.0f} s. {self._last_words()}") from None
        if line is None:
            raise DaemonError(f"The service ended before it was ready. {self._last_words()}")
        return line

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(["The end of its log:", *lines[-_LOG_LINES_SHOWN:]]) if lines else "Its log is empty."


def _pass_on(output: IO[str], lines: "queue.SimpleQueue[str | None]") -> None:
    """Moves lines from a process to a queue until the process ends, so that it never waits for a reader."""
    with output:
        for line in output:
            lines.put(line.rstrip("\n"))
    lines.put(None)
