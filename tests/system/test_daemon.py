"""The daemon's own life: what it leaves behind, what survives it, and why it may refuse to start."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from nablad import Client
from nablad.errors import UnavailableError
from nablad.jobspec import parse
from nablad.local import LocalService, pids_of
from nablad.v1 import jobs_pb2 as jobs_pb
from tests.harness.processes import send, shared_files, until_empty, wait_until_gone

NewDaemon = Callable[..., Any]
# The command lines of a fleet's processes.
SECONDS = 60
_FLEET = "_WorkerProcess|_ParameterServerProcess"
DIGITS = Path(__file__).parents[2] / "nablad" / "demo" / "digits-train.npz"


def _submit(address: str, epochs: int) -> str:
    spec, violations = parse(
        "name: life\ndata: {train: digits}\nmodel: {layers: [64, 20, 10]}\n"
        f"training: {{epochs: {epochs}}}\ndistribution: {{workers: 2}}\ncheckpoints: {{every_epochs: 20}}"
    )
    assert not violations
    with Client(address) as client:
        if "digits" not in {dataset.name for dataset in client.datasets()}:
            client.add_dataset("digits", [DIGITS])
        return client.submit(spec).job_id


def _wait_running(address: str, job_id: str) -> None:
    with Client(address) as client:
        next(news for news in client.watch(job_id) if isinstance(news, jobs_pb.Progress) and news.step > 0)


@pytest.fixture
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Shared memory is after the test what it was before, and the folder for temporary files is empty."""
    shared = shared_files()
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield
        assert list(Path(folder).iterdir()) == []
    assert until_empty(lambda: sorted(shared_files() - shared)) == []


def test_it_runs_where_little_is_as_usual(
    new_daemon: NewDaemon,
    nothing_left: None,
    hostile_folders: tuple[Path, Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Modules of the names that it imports lie where it is started and in PYTHONPATH: a job succeeds, and none was run.

    The directory for temporary files is a batch system's, of long path, and the addresses are of IPv6.
    """
    here, there, marker = hostile_folders
    long = tmp_path / ("job." + "7" * 60)
    long.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("PYTHONPATH", str(there))
    monkeypatch.setenv("TMPDIR", str(long))
    options = {"address": "[::1]:0", "metrics_address": "[::1]:0"} if _has_ipv6() else {}
    # Without -P, the directory in which it is started comes first of all.
    daemon = new_daemon(command=[sys.executable, "-m", "nablad", "serve"], **options)
    job_id = _submit(daemon.address, 1)
    with Client(daemon.address) as client:
        list(client.watch(job_id))
        assert client.job(job_id).state == jobs_pb.JOB_STATE_SUCCEEDED, client.job(job_id).reason
    (folder,) = {
        Path(found.group(1)) for line in daemon.processes().values() if (found := re.search(r"--folder (\S+)", line))
    }
    assert folder.is_dir()
    assert not folder.is_relative_to(long)
    assert daemon.stop() == 0
    assert not folder.exists()
    assert list(long.iterdir()) == []
    assert not marker.exists(), marker.read_text()


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_ended_jobs_leave_no_process(daemon: LocalService) -> None:
    """After a job, only Ray's own processes are there, each of which can be told by its command line."""
    job_id = _submit(daemon.address, 1)
    with Client(daemon.address) as client:
        list(client.watch(job_id))
    wait_until_gone(daemon.processes(), _FLEET)
    processes = daemon.processes()
    assert not [line for line in processes.values() if re.search(_FLEET, line)]
    assert pids_of("service", processes) == {daemon.process.pid}
    for role in ("cluster process", "raylet", "gcs_server"):
        assert len(pids_of(role, processes)) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_leaves_nothing_behind_and_a_job_goes_on_after_a_restart(
    mortal: LocalService, mortal_traces: Callable[[], list[str]], number: signal.Signals
) -> None:
    """In the middle of a job: exit code 0, no process, no shared memory, no temporary folder.

    Its watcher is told where to resume, and the next daemon ends the job. The signal comes twice, as wrappers send it.
    """
    job_id = _submit(mortal.address, 1_000_000)
    _wait_running(mortal.address, job_id)
    told: list[str] = []
    watching = threading.Event()

    def watch() -> None:
        with Client(mortal.address, patience_s=0) as client:
            try:
                for news in client.watch(job_id):
                    if isinstance(news, jobs_pb.Progress) and news.step > 0:  # there is something to resume
                        watching.set()
            except UnavailableError as error:
                told.append(str(error))

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert watching.wait(30)
    assert len(mortal.processes()) > 5
    mortal.process.send_signal(number)
    mortal.process.send_signal(number)
    assert mortal.process.wait(SECONDS) == 0, mortal.log_file.read_text()[-5000:]
    assert mortal.processes() == {}
    assert mortal_traces() == []
    watcher.join(30)
    assert "resume from event" in told[0]
    mortal.start()
    _wait_running(mortal.address, job_id)
    with mortal.client() as client:
        assert client.cancel(job_id).attempt == 2
        events = [news for news in client.watch(job_id) if isinstance(news, jobs_pb.Event)]
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    (left,) = [
        found for event in events if (found := re.search(r"goes away; it goes on from step (\d+)", event.message))
    ]
    assert any(f"goes on from the checkpoint of step {left.group(1)}" in event.message for event in events)


def _try_to_stop(daemon: LocalService) -> int | None:
    """SIGTERM; gives the exit code if it ends soon after."""
    daemon.process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        return daemon.process.wait(0.1)
    return None


@pytest.mark.faults
def test_a_second_signal_ends_the_service_at_once(mortal: LocalService) -> None:
    """Though no checkpoint can be had of a process that hangs; its processes end, and the next service goes on.

    It is sent until it counts: not before a second after the first.
    """
    job_id = _submit(mortal.address, 1_000_000)
    _wait_running(mortal.address, job_id)
    send(signal.SIGSTOP, pids_of("parameter server", mortal.processes()))
    with Client(mortal.address, patience_s=0) as client:
        watch = client.watch(job_id)
        next(watch)
        mortal.process.send_signal(signal.SIGTERM)
        with pytest.raises(UnavailableError):
            list(watch)
    while (code := _try_to_stop(mortal)) is None:
        pass
    assert code == 128 + signal.SIGTERM
    wait_until_gone(mortal.processes())
    mortal.start()
    _wait_running(mortal.address, job_id)
    with mortal.client() as client:
        assert client.job(job_id).lost_with_service == 0  # it was told to end


@pytest.mark.faults
def test_a_killed_daemon_loses_no_job(mortal: LocalService) -> None:
    """SIGKILL in the middle: Ray and all other processes end by themselves, and the next daemon ends the job.

    Nothing is left of Ray, not even its agents: the cluster process notices, and takes it down in order.
    """
    job_id = _submit(mortal.address, 150)
    with mortal.client() as client:
        next(news for news in client.watch(job_id) if isinstance(news, jobs_pb.Event) and news.checkpoint)
    processes = mortal.processes()
    assert pids_of("cluster process", processes)
    mortal.kill()
    wait_until_gone(processes)
    mortal.start()
    with mortal.client() as client:
        messages = [news.message for news in client.watch(job_id) if isinstance(news, jobs_pb.Event)]
        assert client.job(job_id).state == jobs_pb.JOB_STATE_SUCCEEDED
        assert client.job(job_id).lost_attempts == 0
        assert client.job(job_id).lost_with_service == 1
    assert any("the service was restarted" in message for message in messages)
    assert any("attempt 2 goes on from the checkpoint of step" in message for message in messages)


def _refusal(*options: str | Path) -> str:
    """What a daemon says that does not start."""
    ran = subprocess.run(
        [sys.executable, "-m", "nablad", "serve", *options], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 1, ran.stderr
    return ran.stderr.strip().splitlines()[-1]


@pytest.fixture
def cluster(daemon: LocalService, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of a Ray cluster, that of the shared daemon, which processes of the test may join.

    The user has its token; nobody else could read it out of the environment of its processes.
    """
    processes = daemon.processes()
    (pid,) = pids_of("raylet", processes)
    address, *_ = re.findall(r"--gcs-address=(\S+)", processes[pid])
    (token,) = re.findall(rb"RAY_AUTH_TOKEN=(\w+)", Path(f"/proc/{pid}/environ").read_bytes())
    monkeypatch.setenv("RAY_AUTH_TOKEN", token.decode())
    # Else Ray would look for a cluster of this host at the address that others see of it; that one listens at none.
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    return address


def test_a_daemon_on_a_cluster_takes_its_cpus_and_gives_them_back(
    daemon: LocalService, new_daemon: NewDaemon, cluster: str
) -> None:
    """With --ray the fleets run on somebody else's Ray, here that of another daemon, and leave it as they found it."""
    guest = new_daemon(ray=cluster)
    job_id = _submit(guest.address, 3)
    with Client(guest.address) as client:
        list(client.watch(job_id))
        assert client.job(job_id).state == jobs_pb.JOB_STATE_SUCCEEDED, client.job(job_id).reason
    _wait_running(guest.address, _submit(guest.address, 1_000_000))
    assert any("_ParameterServerProcess" in line for line in daemon.processes().values())
    assert guest.stop() == 0, guest.log_file.read_text()
    assert guest.processes() == {}
    wait_until_gone(daemon.processes(), _FLEET)


def test_a_data_directory_in_use_is_refused(daemon: Any) -> None:
    """Two daemons never share one."""
    refusal = _refusal("--data-dir", daemon.data_directory)
    assert f"another nablad (process {daemon.process.pid} on " in refusal


def test_an_address_in_use_is_refused(daemon: LocalService, cluster: str, tmp_path: Path) -> None:
    """The sentence names the option that helps."""
    options = ("--data-dir", tmp_path, "--ray", cluster)
    assert "--address" in _refusal(*options, "--address", daemon.address, "--metrics-address", "127.0.0.1:0")
    assert "--metrics-address" in _refusal(
        *options, "--address", "127.0.0.1:0", "--metrics-address", daemon.metrics_address
    )


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:99999", ":80x"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, address: str) -> None:
    """Before Ray is started."""
    assert "HOST:PORT" in _refusal("--data-dir", tmp_path, "--address", address)


def test_a_ray_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    """One sentence with the address."""
    assert "127.0.0.1:1" in _refusal("--data-dir", tmp_path, "--ray", "127.0.0.1:1")


def test_what_is_no_ray_cluster_is_refused_soon(daemon: Any, tmp_path: Path) -> None:
    """The address of the API, for instance: Ray itself would ask there for two minutes."""
    refusal = _refusal("--data-dir", tmp_path, "--ray", daemon.address)
    assert f"what listens at {daemon.address} is not the head of a Ray cluster" in refusal


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file in its place, for instance."""
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in _refusal("--data-dir", tmp_path / "file" / "data")
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208
