"""The number of workers, and the loss of one, never change a bit of the result."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nablad import Client
from nablad.spec import parse
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.datasets import fit_scaling
from service.model_files import load_model

JOB_FILE = """
name: identity
data: {{train: digits-train, validation: digits-validation, scaling: standard}}
model: {{layers: [64, 40, 10], activation: sigmoid, output_activation: sigmoid, dtype: {dtype}}}
cost: {{function: log_loss}}
training: {{epochs: {epochs}, batch_size: 50, learning_rate: 0.5, seed: 11}}
distribution: {{workers: {workers}, micro_batches: 4}}
"""


def _submit(client: Client, workers: int, dtype: str = "float32", epochs: int = 3) -> jobs_pb.Job:
    spec, violations = parse(JOB_FILE.format(workers=workers, dtype=dtype, epochs=epochs))
    assert not violations
    return client.submit(spec)


def _finish(client: Client, job: jobs_pb.Job) -> jobs_pb.Job:
    for _ in client.watch(job.job_id):
        pass
    done = client.job(job.job_id)
    assert done.state == jobs_pb.JOB_STATE_SUCCEEDED, done.reason
    return done


def _file(daemon: Any, job: jobs_pb.Job) -> bytes:
    return (daemon.data_dir / "models" / f"{job.model_id}.safetensors").read_bytes()


def test_one_to_four_workers_leave_the_same_file(client: Client, daemon: Any, digits: None) -> None:
    """Only the spec's micro-batches fix the arithmetic; the hands that do it do not."""
    files = {workers: _file(daemon, _finish(client, _submit(client, workers))) for workers in (1, 2, 3, 4)}
    assert len(set(files.values())) == 1


@pytest.mark.parametrize("victims", [1, 2])
def test_killed_workers_leave_no_trace(client: Client, daemon: Any, digits: None, victims: int) -> None:
    """SIGKILL in the middle, of one worker or of both: the file is that of an undisturbed run."""
    undisturbed = _file(daemon, _finish(client, _submit(client, 2, epochs=80)))
    job = _submit(client, 2, epochs=80)
    to_kill: list[int] = []
    lost = 0
    for news in client.watch(job.job_id):
        if not isinstance(news, jobs_pb.Event):
            continue
        if news.WhichOneof("what") == "worker_joined":
            lost += not news.worker_joined
            to_kill += [int(pid) for pid in re.findall(r"process (\d+)", news.message)]
        if news.WhichOneof("what") == "epoch_end" and news.epoch_end.epoch == 5:
            for pid in to_kill[:victims]:
                os.kill(pid, signal.SIGKILL)
    done = _finish(client, job)
    assert lost == victims
    assert done.attempt == 1
    assert _file(daemon, done) == undisturbed


def test_float64_through_everything_equals_a_plain_numpy_loop(
    client: Client, daemon: Any, digits: None, plain_training: Callable[[ps_pb.Assignment], bytes]
) -> None:
    """Service, Ray and gRPC add nothing to the arithmetic: the weights are, bit for bit, those of one loop."""
    job = _finish(client, _submit(client, 3, "float64"))
    directory = Path(daemon.data_dir) / "datasets" / "digits-train"
    assignment = ps_pb.Assignment(
        spec=job.spec,
        train=ps_pb.DataSource(dataset=client.dataset("digits-train"), directory=str(directory)),
        scaling=fit_scaling(job.spec.data.scaling, directory),
    )
    path = daemon.data_dir / "models" / f"{job.model_id}.safetensors"
    model = load_model(path, job.spec, client.model(job.model_id).sha256)
    assert model.parameters.dtype == np.float64
    assert model.parameters.tobytes() == plain_training(assignment)
