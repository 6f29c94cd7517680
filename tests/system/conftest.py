"""A real daemon for the tests: its own process, its own Ray, free ports, a data directory of its own."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nablad import Client
from nablad.local import LocalService
from tests.harness.processes import send


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("system")


_CPUS = 8


@pytest.fixture(scope="session", autouse=True)
def temporary_folder() -> Iterator[None]:
    """Daemons keep their temporary files in a folder that goes with the tests, also those that are killed."""
    with (
        tempfile.TemporaryDirectory(prefix="t-", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("TMPDIR", folder)
        yield


@pytest.fixture(scope="session", autouse=True)
def prompt_watches() -> Iterator[None]:
    """Tests that wait for an event of a job hear of it within a tenth of a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NABLAD_WATCH_INTERVAL", "0.1")
        yield


@pytest.fixture
def new_daemon(tmp_path: Path) -> Iterator[Callable[..., LocalService]]:
    """Starts daemons for one test; those that still run at its end are killed."""
    started: list[LocalService] = []

    def start(data_directory: Path | None = None, **options: Any) -> LocalService:
        service = LocalService(
            data_directory or tmp_path / "data", **{"cpus": _CPUS, "log_file": tmp_path / "log", **options}
        )
        started.append(service)
        return service.start()

    yield start
    for daemon in started:
        send(signal.SIGKILL, daemon.processes())
        daemon.stop()


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalService]:
    """The daemon that tests share; at the end it must stop cleanly."""
    with LocalService(cpus=_CPUS, log_file=tmp_path_factory.mktemp("daemon") / "log") as daemon:
        yield daemon
        assert daemon.stop() == 0, daemon.log_file.read_text()[-5000:]


@pytest.fixture
def client(daemon: LocalService) -> Iterator[Client]:
    """A client of the shared daemon."""
    with Client(daemon.address) as client:
        yield client


@pytest.fixture(scope="session")
def nabla(daemon: LocalService) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs the command `nabla` against the shared daemon."""

    def run(*arguments: str | Path, **options: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [Path(sys.executable).with_name("nabla"), "--server", daemon.address, *map(str, arguments)],
            capture_output=True, text=True, timeout=100, check=False, **options,  # type: ignore[call-overload]
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def digits(daemon: LocalService) -> None:
    """The digits, registered as digits-train and digits-validation."""
    folder = Path(__file__).parents[2] / "nablad" / "demo"
    with Client(daemon.address) as client:
        for name in ("digits-train", "digits-validation"):
            client.add_dataset(name, [folder / f"{name}.npz"])
