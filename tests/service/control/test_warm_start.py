"""Jobs that begin with the weights of another: the first checkpoint that is written for them."""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nablad.v1 import models_pb2 as models_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.folder import CheckpointFolder
from service.checkpoints.image import Snapshot, make_image
from service.control.warm_start import WarmStarts
from service.errors import ModelFileError
from service.models.model_files import writing_model
from service.storage.data_directory import DataDirectory
from service.stores.catalogues import ModelCatalogue
from service.stores.jobs import JobStore
from workers import from_spec
from workers.from_spec import spec_digest

LARGE = (100, 80_000, 2)  # 66 MB of float64
MOST_BYTES = 8 << 20

MakeJob = Callable[..., ps_pb.Assignment]


@pytest.fixture
def write_first_checkpoint(
    directory: DataDirectory, jobs: JobStore, models: ModelCatalogue
) -> Callable[[ps_pb.Assignment], CheckpointFolder]:
    """Lays down what a job begins with; gives its folder."""

    def run(job: ps_pb.Assignment) -> CheckpointFolder:
        asyncio.run(WarmStarts(directory, jobs, models).write_first_checkpoint(job))
        return CheckpointFolder(directory.checkpoints(job.job_id))

    return run


@pytest.fixture
def keep_model(directory: DataDirectory, models: ModelCatalogue) -> Callable[[ps_pb.Assignment, np.ndarray], str]:
    """Keeps a model; gives its id."""

    def keep(job: ps_pb.Assignment, weights: np.ndarray) -> str:
        with writing_model(directory.model(job.job_id), job) as writer:
            writer.write(weights.tobytes())
        models.add(models_pb.Model(model_id=job.job_id, spec=job.spec, sha256=writer.sha256))
        return job.job_id

    return keep


def _weights(job: ps_pb.Assignment) -> np.ndarray:
    return from_spec.first_parameters(job.spec)


def _expected(job: ps_pb.Assignment, weights: np.ndarray) -> bytes:
    """The whole file, made of whole vectors."""
    weights = weights.astype(from_spec.dtype(job.spec))
    snapshot = Snapshot(ps_pb.TrainingState(), weights, from_spec.update_rule(job.spec).init(weights).moments)
    description = {"job_id": job.job_id, "attempt": 0, "spec_sha256": spec_digest(job)}
    return bytes(make_image(snapshot, description))


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("dtypes", [("float64", "float64"), ("float64", "float32"), ("float32", "float64")])
def test_weights_of_a_model(
    model_job: MakeJob, keep_model: Any, write_first_checkpoint: Any, optimizer: str, dtypes: tuple[str, str]
) -> None:
    """In the type of the new job, with what its optimizer begins with."""
    other = model_job(dtype=dtypes[0], job_id="other")
    job = model_job(dtype=dtypes[1], optimizer=optimizer)
    job.spec.training.warm_start.model = keep_model(other, _weights(other))
    folder = write_first_checkpoint(job)
    checkpoint, skipped = folder.newest(spec_digest(job))
    assert skipped == []
    assert folder.path_of(checkpoint).read_bytes() == _expected(job, _weights(other))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_weights_of_a_checkpoint(
    model_job: MakeJob, jobs: JobStore, directory: DataDirectory, write_first_checkpoint: Any, optimizer: str
) -> None:
    """Of a job that goes on: its newest one, without its moments."""
    spec = model_job().spec
    other = jobs.create(spec, "")
    weights = _weights(model_job())
    with CheckpointFolder(directory.checkpoints(other.job_id)).writing(7, 1) as writer:
        writer.write(make_image(Snapshot(ps_pb.TrainingState(step=7), weights, (weights + 1,), weights + 2), {}))
    job = model_job(optimizer=optimizer)
    job.spec.training.warm_start.checkpoint_of = other.job_id
    folder = write_first_checkpoint(job)
    assert folder.path_of(folder.list()[0]).read_bytes() == _expected(job, weights)


def test_a_model_that_is_not_whole_is_no_beginning(
    model_job: MakeJob, keep_model: Any, write_first_checkpoint: Any, directory: DataDirectory
) -> None:
    """Nothing is laid down."""
    job = model_job()
    other = model_job(job_id="other")
    job.spec.training.warm_start.model = keep_model(other, _weights(other))
    with directory.model("other").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(ModelFileError, match="the file of model other is damaged"):
        write_first_checkpoint(job)
    assert CheckpointFolder(directory.checkpoints("job-1")).list() == []


@pytest.mark.parametrize("source", ["model", "checkpoint_of"])
def test_large_weights_take_no_more_memory_than_small_ones(
    model_job: MakeJob,
    jobs: JobStore,
    directory: DataDirectory,
    keep_model: Any,
    write_first_checkpoint: Any,
    allocating: Callable[[], Any],
    source: str,
) -> None:
    """66 MB, and as much twice for the optimizer, go through a few."""
    job = model_job(LARGE, optimizer="adam")
    weights = np.zeros(from_spec.size(job.spec))
    if source == "model":
        job.spec.training.warm_start.model = keep_model(model_job(LARGE, job_id="other"), weights)
    else:
        other = jobs.create(model_job(LARGE).spec, "")
        with CheckpointFolder(directory.checkpoints(other.job_id)).writing(7, 1) as writer:
            writer.write(make_image(Snapshot(ps_pb.TrainingState(step=7), weights), {}))
        job.spec.training.warm_start.checkpoint_of = other.job_id
    with allocating() as peak:
        folder = write_first_checkpoint(job)
    assert folder.list()[0].size_bytes > 180 << 20
    assert peak.bytes < MOST_BYTES
