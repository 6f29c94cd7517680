"""A real daemon for the tests: its own process, its own Ray, free ports, a data directory of its own."""

import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.robustness import daemon as daemon_process
from benchmarks.robustness.daemon import Daemon
from nablad import Client


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("system")


def start_daemon(data_dir: Path, log: Path, *options: str) -> Daemon:
    """Starts a daemon and waits until it is ready."""
    return daemon_process.start_daemon(data_dir, log, uuid.uuid4().hex, "--cpus", "8", *options)


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
