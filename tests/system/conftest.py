"""A real daemon for the tests: its own process, its own Ray, free ports, a data directory of its own."""

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import pytest

from nablad import Client

_MARK = "NABLAD_TEST_MARK"
_START_SECONDS = 60
_STOP_SECONDS = 30
_GONE_SECONDS = 60


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("system")


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
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdecimal():
                continue
            try:
                if f"{_MARK}={self.mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_text(encoding="utf-8").replace("\0", " ")
            except OSError:  # it ended in the meantime
                continue
        return found

    def wait_until_gone(self, pattern: str = "") -> None:
        """Waits until processes have ended whose command lines match.

        All but Ray's agents: those of a killed daemon look for Ray for a while.
        """
        for pid, line in self.processes().items():
            if not re.search(pattern, line) or "Agent" in line:
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

    def wait(self) -> int:
        """Waits for its end; gives the exit code."""
        self.process.communicate(timeout=_STOP_SECONDS)
        return self.process.returncode


def start_daemon(data_dir: Path, log: Path, *options: str) -> Daemon:
    """Starts a daemon and waits until it is ready."""
    mark = uuid.uuid4().hex
    with log.open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve", "--data-dir", data_dir, "--address", "127.0.0.1:0",
             "--metrics-address", "127.0.0.1:0", "--cpus", "8", *options],
            stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | {_MARK: mark}, start_new_session=True,
        )  # fmt: skip
    assert process.stdout is not None
    said = _lines_until_ready(process, process.stdout)
    if "nablad: ready" not in said:
        process.kill()
        pytest.fail(f"the daemon did not start; it said {said} and logged:\n{log.read_text()}")
    said_after = {line.split(" on ")[0]: line.split(" on ")[1] for line in said if " on " in line}
    return Daemon(process, mark, data_dir, said_after["nablad: listening"], said_after["nablad: metrics"], log)


def _lines_until_ready(process: "subprocess.Popen[str]", stream: TextIO) -> list[str]:
    """What it says until it is ready, ends, or takes too long."""
    lines: list[str] = []
    killer = threading.Timer(_START_SECONDS, process.kill)
    killer.start()
    for line in stream:
        lines.append(line.strip())
        if lines[-1] == "nablad: ready":
            break
    killer.cancel()
    return lines


@pytest.fixture(scope="session", autouse=True)
def temporary_folder() -> Iterator[None]:
    """Daemons keep their temporary files in a folder that goes with the tests, also those that are killed."""
    with (
        tempfile.TemporaryDirectory(prefix="t-", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("TMPDIR", folder)
        yield


@pytest.fixture
def new_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Starts daemons for one test; those that still run at its end are killed."""
    started: list[Daemon] = []

    def start(data_dir: Path | None = None, *options: str) -> Daemon:
        started.append(start_daemon(data_dir or tmp_path / "data", tmp_path / "log", *options))
        return started[-1]

    yield start
    for daemon in started:
        for pid in daemon.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        daemon.wait()


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    """The daemon that tests share; at the end it must stop cleanly."""
    with tempfile.TemporaryDirectory(prefix="nablad-test-") as folder:
        daemon = start_daemon(Path(folder) / "data", Path(folder) / "log")
        yield daemon
        assert daemon.stop() == 0, daemon.log.read_text()[-5000:]


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    """A client of the shared daemon."""
    with Client(daemon.address) as client:
        yield client


@pytest.fixture(scope="session")
def nabla(daemon: Daemon) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs the command `nabla` against the shared daemon."""

    def run(*arguments: str | Path, **options: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [Path(sys.executable).with_name("nabla"), "--server", daemon.address, *map(str, arguments)],
            capture_output=True, text=True, timeout=100, check=False, **options,  # type: ignore[call-overload]
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def digits(daemon: Daemon) -> None:
    """The digits, registered as digits-train and digits-validation."""
    folder = Path(__file__).parents[2] / "nablad" / "demo"
    with Client(daemon.address) as client:
        for name in ("digits-train", "digits-validation"):
            client.add_dataset(name, [folder / f"{name}.npz"])
