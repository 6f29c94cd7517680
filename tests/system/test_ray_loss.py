"""Ray is killed under a running service: the API goes on, Ray comes back, and jobs end as if nothing had happened."""

import os
import select
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from nablad import Client
from nablad.jobspec import parse
from nablad.local import LocalService, LocalServiceError
from nablad.v1 import jobs_pb2 as jobs_pb
from tests.harness.processes import wait_until_gone

NewDaemon = Callable[..., Any]
DIGITS = Path(__file__).parents[2] / "nablad" / "demo" / "digits-train.npz"
# Checkpoints are due after each epoch; long enough for Ray to be killed in the middle.
JOB_FILE = """
name: ray-loss
data: {train: digits, scaling: standard}
model: {layers: [64, 40, 10], activation: sigmoid, output_activation: sigmoid}
cost: {function: log_loss}
training: {epochs: 200, batch_size: 50, learning_rate: 0.5, seed: 11}
distribution: {workers: 2, micro_batches: 4}
checkpoints: {every_epochs: 1}
"""
SECONDS = 60
VICTIMS = {
    "gcs_server": "/gcs_server",
    "raylet": "/raylet/raylet",
    "cluster process": "service.cluster.process",
}


def _submit(client: Client) -> str:
    if "digits" not in {dataset.name for dataset in client.datasets()}:
        client.add_dataset("digits", [DIGITS])
    spec, violations = parse(JOB_FILE)
    assert not violations, violations
    return client.submit(spec).job_id


def _finish(client: Client, job_id: str) -> jobs_pb.Job:
    for _ in client.watch(job_id):
        pass
    job = client.job(job_id)
    assert job.state == jobs_pb.JOB_STATE_SUCCEEDED, (job.reason, job.last_error_lines)
    return job


def _wait_for_checkpoint(client: Client, job_id: str) -> None:
    next(news for news in client.watch(job_id) if isinstance(news, jobs_pb.Event) and news.checkpoint)


def _weights(client: Client, job_id: str) -> list[str]:
    """SHA-256 of the weights after each epoch."""
    return [point.weights_sha256 for point in client.history(job_id)]


def _below(daemon: Any) -> dict[int, str]:
    """Every process that the daemon started, by id."""
    return {pid: line for pid, line in daemon.processes().items() if pid != daemon.process.pid}


@pytest.fixture(scope="module")
def undisturbed(daemon: Any) -> list[str]:
    """The weights of the job that nothing happens to."""
    with Client(daemon.address) as client:
        job_id = _submit(client)
        _finish(client, job_id)
        return _weights(client, job_id)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_killed_ray_costs_an_attempt_and_not_the_result(
    new_daemon: NewDaemon, undisturbed: list[str], victim: str
) -> None:
    """The API answers meanwhile, the job goes on from its checkpoint, and of the old Ray nothing is left."""
    daemon = new_daemon()
    with Client(daemon.address, patience_s=0) as client:
        job_id = _submit(client)
        _wait_for_checkpoint(client, job_id)
        old = _below(daemon)
        (pid,) = [pid for pid, line in old.items() if VICTIMS[victim] in line.split(" --")[0]]
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + SECONDS
        while client.job(job_id).attempt == 1 and time.monotonic() < deadline:
            assert len(list(client.jobs())) == 1
        job = _finish(client, job_id)
        assert job.attempt == 2
        # Ray's end is not the job's fault.
        assert job.lost_attempts == 0
        assert _weights(client, job_id) == undisturbed
        messages = [news.message for news in client.watch(job_id) if isinstance(news, jobs_pb.Event)]
        assert any("Ray was lost" in message for message in messages)
    with urlopen(daemon.metrics_url) as page:  # noqa: S310 (our own)
        assert "nablad_cluster_losses_total 1.0" in page.read().decode()
    wait_until_gone(old)
    assert daemon.stop() == 0, daemon.log_file.read_text()[-5000:]
    assert daemon.processes() == {}


def test_a_killed_daemon_takes_its_ray_along(new_daemon: NewDaemon) -> None:
    """The cluster process notices, and takes Ray down in order: nothing is left, not even Ray's agents."""
    daemon = new_daemon()
    with Client(daemon.address) as client:
        _wait_for_checkpoint(client, _submit(client))
    old = _below(daemon)
    assert any(VICTIMS["cluster process"] in line for line in old.values())
    daemon.kill()
    wait_until_gone(old)


def test_a_cluster_process_that_is_told_to_end_again_still_takes_ray_down(new_daemon: NewDaemon) -> None:
    """At whatever moment of its end: a service that drains and then ends at once tells it twice."""
    daemon = new_daemon()
    old = _below(daemon)
    (pid,) = [pid for pid, line in old.items() if VICTIMS["cluster process"] in line]
    end = os.pidfd_open(pid)
    daemon.kill()
    while not select.select([end], [], [], 0.02)[0]:
        signal.pidfd_send_signal(end, signal.SIGTERM)
    os.close(end)
    wait_until_gone(old)


def test_a_daemon_that_is_killed_while_ray_starts_takes_it_along() -> None:
    """What has been started of Ray goes too, agents included, which would look for it for a minute."""
    daemon = LocalService()
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(daemon.start)
        try:
            deadline = time.monotonic() + SECONDS
            # Before it takes its title, which is written over the environment with the mark.
            while "dashboard/agent.py" not in " ".join((old := daemon.processes()).values()):
                assert time.monotonic() < deadline, old
        finally:
            daemon.kill()
        with pytest.raises(LocalServiceError, match="ended before it was ready"):
            starting.result()
    wait_until_gone(old)
