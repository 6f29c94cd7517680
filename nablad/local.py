"""Local service: a service on this machine, started and stopped by a program.

    from nablad.local import LocalService

    with LocalService() as service, service.client() as client:
        client.add_dataset("digits", ["digits.npz"])

The server's packages must be installed: ``pip install '.[server]'`` in the folder of nablad's source.
"""

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Self

from nablad.errors import NablaError

if TYPE_CHECKING:
    from nablad.client import Client

__all__ = ["MARK", "ROLES", "LocalService", "LocalServiceError", "pids_of"]

# Every process of a service has this variable in its environment, with the service's mark.
MARK = "NABLAD_LOCAL_SERVICE"

# Command lines of a service's processes.
ROLES = {
    "service": r"-m nablad serve",
    "cluster process": r"service\.cluster",
    "raylet": r"raylet/raylet ",
    "gcs_server": r"gcs/gcs_server ",
    "parameter server": r"_ParameterServerProcess",
    "worker": r"_WorkerProcess",
}

# -P, because the working directory may contain another folder called `nablad`.
_COMMAND = (sys.executable, "-P", "-m", "nablad", "serve")
_ADDRESS = "nablad: listening on "
_METRICS = "nablad: metrics on "
_READY = "nablad: ready"
_LOG_LINES_SHOWN = 15


class LocalServiceError(NablaError):
    """Error: the service could not be started; gives the reason, the end of its log, and what to do."""


class LocalService:
    """Service in separate processes, on free ports of this machine; usable in a with block.

    The service ends when the block ends, when `stop` is called, and at the latest with this program. Ctrl-C does not
    reach its processes, so that the program can stop them in order.

    Attributes:
        address: ``host:port`` of the gRPC API; before the first start, the requested one.
        metrics_address: ``host:port`` of the metrics page; before the first start, the requested one.
        data_directory: Directory of jobs, data sets and models.
        log_file: File of the service's log.
        mark: Value of the environment variable `MARK` in all of its processes.
    """

    data_directory: Path
    log_file: Path

    def __init__(
        self,
        data_directory: Path | str | None = None,
        *,
        cpus: int | None = None,
        ray: str | None = None,
        address: str = "127.0.0.1:0",
        metrics_address: str = "127.0.0.1:0",
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        log_file: Path | str | None = None,
        command: Sequence[str] | None = None,
        start_s: float = 90.0,
        stop_s: float = 40.0,
    ) -> None:
        """Stores the settings; `start` starts the service.

        Args:
            data_directory: Data directory, kept after the end; by default a temporary one, which is removed.
            cpus: CPUs that the service's own Ray gives to workers; by default all CPUs of the machine.
            ray: Address of a running Ray cluster to use instead.
            address: ``host:port`` of the gRPC API; port 0 takes a free one.
            metrics_address: ``host:port`` of the metrics page; port 0 takes a free one.
            options: Further options of `nablad serve`.
            environment: Environment variables in addition to this program's. Of the program's own variables, those of
                the service (NABLAD_…) are not inherited.
            log_file: Log file, appended to and kept; by default a temporary one, which is removed.
            command: Command that runs a service; options are appended.
            start_s: Longest time until the service is ready, in seconds.
            stop_s: Longest time from SIGTERM to the end of the service, in seconds; it is killed after that.
        """
        self.address = address
        self.metrics_address = metrics_address
        self.mark = uuid.uuid4().hex
        self._kept_data = data_directory
        self._kept_log = log_file
        self._command = command
        self._options = [*(() if cpus is None else ("--cpus", str(cpus))), *(() if ray is None else ("--ray", ray))]
        self._options += options
        self._environment = {**(environment or {}), MARK: self.mark}
        self._start_s = start_s
        self._stop_s = stop_s
        self._started: list[subprocess.Popen[bytes]] = []
        self._end: weakref.finalize[..., LocalService] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """Main process of the service; the other processes are its children."""
        if not self._started:
            raise LocalServiceError("The service has not been started: use it in a with block, or call start().")
        return self._started[-1]

    @property
    def is_running(self) -> bool:
        """True while the main process of the service runs."""
        return bool(self._started) and self.process.poll() is None

    @property
    def metrics_url(self) -> str:
        """URL of the metrics page, for Prometheus."""
        return f"http://{self.metrics_address}/metrics"

    def client(self) -> "Client":
        """Returns a new client of the service."""
        from nablad.client import Client  # noqa: PLC0415  # a program that only starts a service needs no gRPC

        return Client(self.address)

    def start(self) -> Self:
        """Starts the service and waits until it is ready; a further start, after its end, uses the same address.

        Raises:
            LocalServiceError: The service is not installed, runs already, or did not become ready.
        """
        if self.is_running:
            raise LocalServiceError(f"The service runs already, at {self.address}.")
        command = self._command or _installed()
        self._make_folder()
        try:
            self._started.append(self._launch(command))
            self._await_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> int:
        """Ends the service by SIGTERM, removes temporary files, and returns the exit code.

        After `stop_s` seconds, or at Ctrl-C, the service is killed. A second call does nothing.
        """
        if self._end is not None:
            self._end()
        return self.process.returncode if self._started else 0

    def kill(self) -> None:
        """Kills only the main process, as a crash would; temporary files stay until `stop`."""
        self.process.kill()
        self.process.wait()

    def processes(self) -> dict[int, str]:
        """Returns command lines by process id, of the service and of all processes that it and its Ray have started."""
        mark = f"{MARK}={self.mark}".encode()
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdecimal():
                continue
            with suppress(OSError):  # a process of another user, or one that has ended
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    line = (folder / "cmdline").read_text(encoding="utf-8", errors="replace")
                    found[int(folder.name)] = line.replace("\0", " ")
        return found

    def _make_folder(self) -> None:
        """Makes the folder for temporary files, unless it is still there after `kill`."""
        if self._end is None or not self._end.alive:
            folder = tempfile.TemporaryDirectory(prefix="nablad-", ignore_cleanup_errors=True)
            self.data_directory = Path(self._kept_data or Path(folder.name, "data"))
            self.log_file = Path(self._kept_log or Path(folder.name, "nablad.log"))
            self._end = weakref.finalize(self, _end, self._started, self._stop_s, folder)

    def _launch(self, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        addresses = ("--address", self.address, "--metrics-address", self.metrics_address)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NABLAD_")}
        with self.log_file.open("ab") as log:
            return subprocess.Popen(  # noqa: S603  # a fixed command, or the caller's
                [*command, "--data-dir", str(self.data_directory), *addresses, *self._options],
                env={**inherited, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C must reach the program only
            )

    def _await_ready(self) -> None:
        for line in self._lines():
            if line.startswith(_ADDRESS):
                self.address = line.removeprefix(_ADDRESS)
            elif line.startswith(_METRICS):
                self.metrics_address = line.removeprefix(_METRICS).removeprefix("http://").removesuffix("/metrics")
            elif line == _READY:
                return

    def _lines(self) -> Iterator[str]:
        """Yields the lines that the service prints, as they arrive."""
        assert self.process.stdout is not None  # noqa: S101 (a pipe was asked for)
        output, rest = self.process.stdout.fileno(), b""
        poll = select.poll()
        poll.register(output, select.POLLIN)
        deadline_s = time.monotonic() + self._start_s
        while poll.poll(max(deadline_s - time.monotonic(), 0) * 1000):
            if not (chunk := os.read(output, 4096)):
                raise LocalServiceError(f"The service ended before it was ready. {self._last_words()}")
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line.decode() for line in lines)
        raise LocalServiceError(
            f"The service was not ready after {self._start_s:.0f} s; start_s gives it more time. {self._last_words()}"
        )

    def _last_words(self) -> str:
        lines = self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(["The end of its log:", *lines[-_LOG_LINES_SHOWN:]]) if lines else "Its log is empty."


def pids_of(role: str, processes: Mapping[int, str]) -> set[int]:
    """Returns the ids of the processes with a role of `ROLES`, found by their command lines."""
    return {pid for pid, line in processes.items() if re.search(ROLES[role], line)}


def _installed() -> Sequence[str]:
    """Returns the command of the service that is installed beside this package."""
    if find_spec("service") is None:
        raise LocalServiceError(
            "The service is not installed: run pip install '.[server]' in the folder of nablad's source."
        )
    return _COMMAND


def _end(
    started: Sequence["subprocess.Popen[bytes]"], stop_s: float, folder: "tempfile.TemporaryDirectory[str]"
) -> None:
    """Ends the service that was started last, and removes temporary files, also if Ctrl-C interrupts the wait."""
    try:
        for process in started[-1:]:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(stop_s)
    finally:
        for process in started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        folder.cleanup()
