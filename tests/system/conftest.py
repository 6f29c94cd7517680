"""A real daemon for the tests: its own process, its own Ray, free ports, a data directory of its own."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from nablad import Client
from nablad.errors import ConflictError
from nablad.local import LocalService
from tests.harness import PROMPT
from tests.harness.processes import send, shared_files, until_empty

# Of the daemon that tests share. Jobs that need all of them start as many processes: so there are no more than needed.
_CPUS = 4
_FEW_CPUS = 3
# They come first where several processes share the files.
_LONGEST = {"test_robustness.py", "test_two_hosts.py", "test_prometheus.py", "test_daemon.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks all tests here as tests with real processes, and puts the longest files first."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("system")
    items.sort(key=lambda item: item.path.name not in _LONGEST)


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
def new_daemon(tmp_path: Path) -> Iterator[Callable[..., LocalService]]:
    """Starts daemons for one test; those that still run at its end are killed."""
    started: list[LocalService] = []

    def start(data_directory: Path | None = None, **options: Any) -> LocalService:
        defaults = {"cpus": _FEW_CPUS, "options": PROMPT, "log_file": tmp_path / "log"}
        service = LocalService(data_directory or tmp_path / "data", **{**defaults, **options})
        started.append(service)
        return service.start()

    yield start
    for daemon in started:
        send(signal.SIGKILL, daemon.processes())
        daemon.stop()


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalService]:
    """The daemon that tests share; at the end it must stop cleanly."""
    with LocalService(cpus=_CPUS, options=PROMPT, log_file=tmp_path_factory.mktemp("daemon") / "log") as daemon:
        yield daemon
        assert daemon.stop() == 0, daemon.log_file.read_text()[-5000:]


@pytest.fixture(scope="session")
def mortal_temporary() -> Iterator[Path]:
    """Folder for temporary files of `mortal`, of short path, as those of sockets have to be."""
    with tempfile.TemporaryDirectory(prefix="m-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def mortal_traces(mortal_temporary: Path) -> Callable[[], list[str]]:
    """Finds what `mortal` left when it had stopped, besides its data: temporary files, and files in shared memory."""
    before = shared_files()

    def look() -> list[str]:
        return [*map(str, mortal_temporary.iterdir()), *until_empty(lambda: sorted(shared_files() - before))]

    return look


@pytest.fixture(scope="session")
def mortal_service(
    tmp_path_factory: pytest.TempPathFactory, mortal_temporary: Path, mortal_traces: Callable[[], list[str]]
) -> Iterator[LocalService]:
    """The service of `mortal`; at the end it must stop cleanly, and nothing may be left but its data directory."""
    folder = tmp_path_factory.mktemp("mortal")
    service = LocalService(
        folder / "data",
        cpus=_FEW_CPUS,
        options=PROMPT,
        environment={"TMPDIR": str(mortal_temporary)},
        log_file=folder / "log",
    )
    yield service
    if not service.is_running:
        service.start()  # it sweeps what the last one has left
    assert service.stop() == 0, service.log_file.read_text()[-5000:]
    assert service.processes() == {}
    assert mortal_traces() == []


@pytest.fixture
def mortal(mortal_service: LocalService) -> Iterator[LocalService]:
    """A daemon that a test may stop or kill; the next one starts it again, over the same data. Its jobs are ended."""
    if not mortal_service.is_running:
        mortal_service.start()
    yield mortal_service
    if mortal_service.is_running:
        with mortal_service.client() as client:
            for job in client.jobs():
                with suppress(ConflictError):
                    client.cancel(job.job_id)


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
