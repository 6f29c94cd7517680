"""The number of workers, the transport, and the loss of workers never change a bit of the result."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nablad import Client
from nablad.jobspec import parse
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.datasets import fit_scaling
from service.models.model_files import ModelFile

JOB_FILE = """
name: identity
data: {{train: digits-train, validation: digits-validation, scaling: standard}}
model: {{layers: [64, 40, 10], activation: sigmoid, output_activation: sigmoid, dtype: {dtype}}}
cost: {{function: log_loss}}
training: {{epochs: {epochs}, batch_size: 50, learning_rate: 0.5, seed: 11}}
distribution: {{workers: {workers}, micro_batches: 4, transport: {transport}}}
"""
TRANSPORTS = ("shared", "inline", "auto")
# Long enough for somebody to be killed in the middle.
LONG_EPOCHS = 60


def _submit(
    client: Client, workers: int, *, transport: str = "auto", dtype: str = "float32", epochs: int = 3
) -> jobs_pb.Job:
    spec, violations = parse(JOB_FILE.format(workers=workers, transport=transport, dtype=dtype, epochs=epochs))
    assert not violations
    return client.submit(spec)


def _finish(client: Client, job: jobs_pb.Job) -> jobs_pb.Job:
    for _ in client.watch(job.job_id):
        pass
    done = client.job(job.job_id)
    assert done.state == jobs_pb.JOB_STATE_SUCCEEDED, done.reason
    return done


def _file(daemon: Any, job: jobs_pb.Job) -> bytes:
    return (daemon.data_directory / "models" / f"{job.model_id}.safetensors").read_bytes()


def test_workers_and_transports_leave_the_same_file(client: Client, daemon: Any, digits: None) -> None:
    """Only the spec's micro-batches fix the arithmetic; how many hands do it, and how, does not."""
    jobs = [_submit(client, workers, transport=transport) for workers in (1, 2, 3, 4) for transport in TRANSPORTS]
    files = {_file(daemon, _finish(client, job)) for job in jobs}
    assert len(files) == 1


# As somebody would write it who tries the claim: all else is left out.
SHORT_JOB_FILE = """
data: {{train: digits-train}}
model: {{layers: [auto, 20, auto]}}
training: {{epochs: 2}}
distribution: {{workers: {workers}}}
"""


@pytest.mark.happy
def test_the_workers_of_a_short_job_file_leave_the_same_file(client: Client, daemon: Any, digits: None) -> None:
    """Nothing that a job file leaves out follows from the number of workers; not even where some have nothing to do."""
    jobs = []
    for workers in (1, 2, 4):
        spec, violations = parse(SHORT_JOB_FILE.format(workers=workers))
        assert not violations
        jobs.append(client.submit(spec))
    assert [len(job.warnings) for job in jobs] == [0, 0, 1]
    assert len({_file(daemon, _finish(client, job)) for job in jobs}) == 1


@pytest.fixture(scope="module")
def undisturbed(daemon: Any, digits: None) -> bytes:
    """The file of a long job that nothing happened to."""
    with Client(daemon.address) as client:
        return _file(daemon, _finish(client, _submit(client, 2, epochs=LONG_EPOCHS)))


@pytest.mark.faults
@pytest.mark.parametrize(("transport", "victims"), [("shared", 1), ("inline", 1), ("auto", 2)])
def test_killed_workers_leave_no_trace(
    client: Client, daemon: Any, undisturbed: bytes, transport: str, victims: int
) -> None:
    """SIGKILL in the middle, of one worker or of both: the file is that of an undisturbed run."""
    job = _submit(client, 2, transport=transport, epochs=LONG_EPOCHS)
    joined: list[int] = []
    killed, lost = 0, 0
    for news in client.watch(job.job_id):
        if not isinstance(news, jobs_pb.Event):
            continue
        if news.WhichOneof("what") == "worker_joined":
            lost += not news.worker_joined
            joined += [int(pid) for pid in re.findall(r"process (\d+)", news.message)]
        if news.WhichOneof("what") == "epoch_end" and len(joined) == 2:
            for pid in joined[killed:victims]:
                os.kill(pid, signal.SIGKILL)
            killed = victims
    done = _finish(client, job)
    assert lost == victims
    assert done.attempt == 1
    assert _file(daemon, done) == undisturbed


def test_float64_through_everything_equals_a_plain_numpy_loop(
    client: Client, daemon: Any, digits: None, plain_training: Callable[[ps_pb.Assignment], bytes]
) -> None:
    """Service, Ray and gRPC add nothing to the arithmetic: the weights are, bit for bit, those of one loop."""
    job = _finish(client, _submit(client, 3, dtype="float64"))
    directory = Path(daemon.data_directory) / "datasets" / "digits-train"
    assignment = ps_pb.Assignment(
        spec=job.spec,
        train=ps_pb.DataSource(dataset=client.dataset("digits-train"), directory=str(directory)),
        scaling=fit_scaling(job.spec.data.scaling, directory),
    )
    path = daemon.data_directory / "models" / f"{job.model_id}.safetensors"
    with ModelFile(path, job.spec, client.model(job.model_id).sha256) as model:
        vector = np.concatenate([*model.pieces()])
    assert vector.dtype == np.float64
    assert vector.tobytes() == plain_training(assignment)
