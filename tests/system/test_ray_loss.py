"""Ray is killed under a running service: the API goes on, Ray comes back, and jobs end as if nothing had happened."""

import os
import re
import select
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import pytest

from nablad import Client
from nablad.jobspec import parse
from nablad.local import LocalService, LocalServiceError, pids_of
from nablad.v1 import jobs_pb2 as jobs_pb
from tests.harness.processes import send, wait_until_gone

pytestmark = pytest.mark.faults

DIGITS = Path(__file__).parents[2] / "nablad" / "demo" / "digits-train.npz"
# Checkpoints are due after each epoch; long enough for Ray to be killed in the middle.
JOB_FILE = """
name: ray-loss
data: {train: digits, scaling: standard}
model: {layers: [64, 40, 10], activation: sigmoid, output_activation: sigmoid}
cost: {function: log_loss}
training: {epochs: 100, batch_size: 50, learning_rate: 0.5, seed: 11}
distribution: {workers: 2, micro_batches: 4}
checkpoints: {every_epochs: 1}
"""
SECONDS = 60
VICTIMS = ("gcs_server", "raylet", "cluster process")


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


def _below(daemon: LocalService) -> dict[int, str]:
    """Every process that the daemon started, by id."""
    return {pid: line for pid, line in daemon.processes().items() if pid != daemon.process.pid}


@pytest.fixture(scope="module")
def undisturbed(daemon: LocalService) -> list[str]:
    """The weights of the job that nothing happens to."""
    with Client(daemon.address) as client:
        job_id = _submit(client)
        _finish(client, job_id)
        return _weights(client, job_id)


def _losses(daemon: LocalService) -> float:
    with urlopen(daemon.metrics_url) as page:  # noqa: S310 (our own)
        (count,) = re.findall(r"^nablad_cluster_losses_total (\S+)$", page.read().decode(), re.MULTILINE)
    return float(count)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_killed_ray_costs_an_attempt_and_not_the_result(
    mortal: LocalService, undisturbed: list[str], victim: str
) -> None:
    """The API answers meanwhile, the job goes on from its checkpoint, and of the old Ray nothing is left."""
    losses = _losses(mortal)
    with Client(mortal.address, patience_s=0) as client:
        job_id = _submit(client)
        _wait_for_checkpoint(client, job_id)
        old = _below(mortal)
        send(signal.SIGKILL, pids_of(victim, old))
        deadline = time.monotonic() + SECONDS
        while client.job(job_id).attempt == 1 and time.monotonic() < deadline:
            assert job_id in {job.job_id for job in client.jobs()}
        job = _finish(client, job_id)
        assert job.attempt == 2
        # Ray's end is not the job's fault.
        assert job.lost_attempts == 0
        assert _weights(client, job_id) == undisturbed
        messages = [news.message for news in client.watch(job_id) if isinstance(news, jobs_pb.Event)]
        assert any("Ray was lost" in message for message in messages)
    assert _losses(mortal) == losses + 1
    wait_until_gone(old)


def test_a_cluster_process_that_is_told_to_end_again_still_takes_ray_down(mortal: LocalService) -> None:
    """At whatever moment of its end: a service that drains and then ends at once tells it twice."""
    old = _below(mortal)
    (pid,) = pids_of("cluster process", old)
    end = os.pidfd_open(pid)
    mortal.kill()
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
