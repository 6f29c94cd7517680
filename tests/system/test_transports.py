"""How weights and gradients travel: as the spec says, as events and metrics tell, and without a trace when it ends."""

import json
import os
import re
import signal
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, NamedTuple

import pytest

from nablad import Client
from nablad.jobspec import parse
from nablad.local import LocalService
from nablad.v1 import jobs_pb2 as jobs_pb
from tests.harness.processes import send, shared_files, until_empty, wait_until_gone

Nabla = Callable[..., "CompletedProcess[str]"]

DIGITS = Path(__file__).parents[2] / "nablad" / "demo" / "digits-train.npz"
FLEET = "_WorkerProcess|_ParameterServerProcess"
WORKERS = 2
JOB_FILE = """
name: transports
data: {{train: digits-train}}
model: {{layers: [64, 30, 10]}}
training: {{epochs: {epochs}, batch_size: 50}}
distribution: {{workers: {workers}, micro_batches: 4, transport: {transport}}}
"""
USED = {"shared": "shared", "inline": "inline", "auto": "shared"}
"""What a spec asks for, and what it gets where all processes are on one host."""


def _submit(client: Client, transport: str, epochs: int, workers: int = WORKERS) -> str:
    spec, violations = parse(JOB_FILE.format(transport=transport, epochs=epochs, workers=workers))
    assert not violations
    return client.submit(spec).job_id


def _wait_joined(client: Client, job_id: str) -> list[str]:
    """What is told of the workers that join; when all have."""
    told: list[str] = []
    for news in client.watch(job_id):
        if isinstance(news, jobs_pb.Event) and news.WhichOneof("what") == "worker_joined":
            told.append(news.message)
        if len(told) == WORKERS:
            return told
    pytest.fail(f"the job ended: {client.job(job_id).reason}")


@pytest.mark.happy
def test_a_job_file_names_its_transport(nabla: Nabla, digits: None, tmp_path: Path) -> None:
    """It is trained with, and shown; left out it is auto."""
    for given, shown in (("transport: inline", "inline"), ("policy: sync", "auto")):
        job = tmp_path / "job.yaml"
        job.write_text(
            f"data: {{train: digits-train}}\nmodel: {{layers: [64, 10]}}\ntraining: {{epochs: 1}}\n"
            f"distribution: {{{given}}}\n"
        )
        watched = nabla("job", "submit", job, "--watch")
        assert watched.returncode == 0, watched.stderr
        newest, *_ = json.loads(nabla("job", "list", "-o", "json").stdout)
        assert newest["spec"]["distribution"]["transport"] == f"TRANSPORT_{shown.upper()}"


def test_a_transport_that_there_is_not_is_refused_with_those_that_there_are(
    nabla: Nabla, client: Client, digits: None, tmp_path: Path
) -> None:
    """In one sentence, and nothing is queued."""
    before = len(list(client.jobs()))
    (tmp_path / "job.yaml").write_text(JOB_FILE.format(transport="grpc", epochs=1, workers=1))
    refused = nabla("job", "submit", tmp_path / "job.yaml")
    assert refused.returncode == 2
    assert 'distribution.transport: got "grpc"; allowed: auto, inline, shared' in refused.stderr
    assert len(list(client.jobs())) == before


class _Mapping(NamedTuple):
    """Of a region, in a process."""

    name: str
    permissions: str
    inode: int


def _mappings(pid: int) -> list[_Mapping]:
    """The regions that a process has mapped; none if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    fields = [line.split() for line in lines if "/memfd:nablad-" in line]
    return [_Mapping(name.removeprefix("/memfd:"), mode, int(inode)) for _, mode, _, _, inode, name, *_ in fields]


def _living() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal()]


@pytest.mark.faults
def test_when_everything_is_killed_no_memory_is_left_and_the_job_ends_with_the_same_bits(mortal: LocalService) -> None:
    """SIGKILL of daemon, Ray, parameter server and workers in the middle of a job that shares memory."""
    epochs, before = 60, shared_files()
    with mortal.client() as client:
        if "digits-train" not in {dataset.name for dataset in client.datasets()}:
            client.add_dataset("digits-train", [DIGITS])
        job_id = _submit(client, "shared", epochs)
        next(news for news in client.watch(job_id) if isinstance(news, jobs_pb.Progress) and news.step > 0)
    processes = mortal.processes()
    regions = {mapping.inode for pid in processes for mapping in _mappings(pid)}
    assert len(regions) >= 2  # the weights, and the gradient of each worker that has joined already
    send(signal.SIGKILL, processes)
    mortal.process.wait()
    wait_until_gone(mortal.processes())
    assert until_empty(lambda: sorted(shared_files() - before)) == []
    assert not [pid for pid in _living() for mapping in _mappings(pid) if mapping.inode in regions]
    mortal.start()
    with mortal.client() as client:
        files = set()
        for each in (job_id, _submit(client, "inline", epochs, workers=1)):
            list(client.watch(each))
            done = client.job(each)
            assert done.state == jobs_pb.JOB_STATE_SUCCEEDED, done.reason
            files.add((mortal.data_directory / "models" / f"{done.model_id}.safetensors").read_bytes())
        assert client.job(job_id).attempt == 2
    assert len(files) == 1


@dataclass
class Running:
    """A job at work, of which all workers have joined."""

    job_id: str
    transport: str
    joined: list[str]
    workers: list[int]
    parameter_server: int


@contextmanager
def _run(daemon: Any, transport: str) -> Iterator[Running]:
    """Runs a job until the end of the block, and its processes with it."""
    wait_until_gone(daemon.processes(), FLEET)
    with Client(daemon.address) as client:
        job_id = _submit(client, transport, 1_000_000)
        try:
            joined = _wait_joined(client, job_id)
            workers = [int(found.group(1)) for each in joined if (found := re.search(r"process (\d+)", each))]
            (parameter_server,) = [pid for pid, line in daemon.processes().items() if "_ParameterServerProcess" in line]
            yield Running(job_id, transport, joined, workers, parameter_server)
        finally:
            client.cancel(job_id)
    wait_until_gone(daemon.processes(), FLEET)


@pytest.mark.faults
def test_the_region_of_a_killed_worker_goes_with_it(daemon: Any, client: Client, digits: None) -> None:
    """The parameter server keeps the memory of those that are there, and of nobody else."""
    with _run(daemon, "shared") as running:
        os.kill(running.workers[0], signal.SIGKILL)
        kept = {f"nablad-{name}" for name in ("weights", "control", "bell", "worker-2", "worker-3")}
        # The next one may be there before it is looked at.
        assert any(
            {mapping.name for mapping in _mappings(running.parameter_server)} - {"nablad-worker-4"} == kept
            for _ in client.watch(running.job_id)
        )


@pytest.fixture(scope="module", params=USED)
def running(request: pytest.FixtureRequest, daemon: Any, digits: None) -> Iterator[Running]:
    """A job of each transport, which several tests look at."""
    with _run(daemon, request.param) as running:
        yield running


def _transport_workers(daemon: Any, job_id: str) -> dict[str, float]:
    with urllib.request.urlopen(daemon.metrics_url) as page:  # noqa: S310 (our own)
        text = page.read().decode()
    series = re.findall(rf'^nablad_job_transport_workers{{job_id="{job_id}",transport="(\w+)"}} (\S+)$', text, re.M)
    return {transport: float(value) for transport, value in series}


def test_events_tell_how_each_worker_is_reached(running: Running) -> None:
    """The transport that is in use, not the one that was asked for."""
    assert [each.rpartition(", ")[2] for each in running.joined] == [f"transport {USED[running.transport]}"] * WORKERS


def test_metrics_tell_how_many_workers_are_reached_in_which_way(running: Running, daemon: Any, client: Client) -> None:
    """While the job runs, for every transport that there is."""
    expected = dict.fromkeys(("shared", "inline"), 0.0) | {USED[running.transport]: WORKERS}
    assert any(_transport_workers(daemon, running.job_id) == expected for _ in client.watch(running.job_id))


def test_regions_are_one_memory_that_workers_cannot_misuse(running: Running) -> None:
    """Workers read weights and control block, write results of their own and the bell; inline, nothing is mapped."""
    served = _mappings(running.parameter_server)
    inodes = {mapping.name: mapping.inode for mapping in served}
    if USED[running.transport] == "inline":
        assert not served
        assert not any(map(_mappings, running.workers))
        return
    shared = {"nablad-bell": "rw-s", "nablad-control": "r--s", "nablad-weights": "r--s"}
    assert sorted(inodes) == [*shared, "nablad-worker-1", "nablad-worker-2"]
    assert {mapping.permissions for mapping in served} == {"rw-s"}
    for number, worker in enumerate(running.workers, start=1):
        mapped = shared | {f"nablad-worker-{number}": "rw-s"}
        assert sorted(_mappings(worker)) == [(name, mode, inodes[name]) for name, mode in mapped.items()]
