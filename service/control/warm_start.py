"""Warm starts: a checkpoint of step 0 with the weights of another job, from which the new job goes on."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nablad.errors import Violation
from nablad.files import CHUNK_BYTES
from nablad.jobspec.names import shown
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import models_pb2 as models_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.folder import CheckpointFolder
from service.checkpoints.image import Pieces, first_image, reading_parameters
from service.errors import CheckpointError, Reason, ServiceError
from service.models.model_files import ModelFile
from service.storage.data_directory import DataDirectory
from service.stores.catalogues import ModelCatalogue
from service.stores.job_states import SUCCEEDED
from service.stores.jobs import JobStore
from workers import from_spec
from workers.from_spec import spec_digest
from workers.runtime.concurrency import run_to_its_end

__all__ = ["WarmStarts"]

Vector = NDArray[np.floating]

_FIELD = "training.warm_start"


class WarmStarts:
    """Finds the weights that a spec asks for, and writes the first checkpoint of the job that starts from them."""

    def __init__(self, directory: DataDirectory, jobs: JobStore, models: ModelCatalogue) -> None:
        self._directory = directory
        self._jobs = jobs
        self._models = models

    def violations(self, spec: spec_pb.JobSpec) -> list[Violation]:
        """Returns the violations of a completed spec that depend on the weights to start from."""
        start = spec.training.warm_start
        try:
            if model_id := self._model_id(start):
                other = self._models.get(model_id).spec
            elif start.checkpoint_of:
                other = self._jobs.get(start.checkpoint_of).spec
            else:
                return []
        except ServiceError as error:
            return [Violation(f"{_FIELD}.{'model' if start.model else 'checkpoint_of'}", error.sentence)]
        return [
            Violation(f"model.{field}", f"got {mine}, but the weights to start from have {theirs}")
            for field, mine, theirs in (
                ("layers", list(spec.model.layers), list(other.model.layers)),
                ("bias", shown(spec.model.bias), shown(other.model.bias)),
            )
            if mine != theirs
        ]

    async def write_first_checkpoint(self, assignment: ps_pb.Assignment) -> None:
        """Writes the checkpoint of step 0 that the job starts from.

        Raises:
            ServiceError: NOT_FOUND: the weights do not exist any more.
            DamagedError: The weights are gone, or not what was written.
            OSError: The checkpoint cannot be written.
        """
        start = assignment.spec.training.warm_start
        # The database is read on this thread, which owns it, and the files on another one, because disks are slow.
        if model_id := self._model_id(start):
            model = self._models.get(model_id)
            source = _of_model(self._directory.model(model_id), model)
        else:
            source = _of_checkpoint(self._folder(start.checkpoint_of))
        await run_to_its_end(_write_first, self._folder(assignment.job_id), assignment, source)

    async def copy_first_checkpoint(self, job_id: str, new_id: str) -> None:
        """Copies the first checkpoint of a job for a new one.

        Raises:
            ServiceError: NOT_FOUND, if there is none.
            DamagedError: The checkpoint is damaged.
            OSError: The checkpoint cannot be written.
        """
        await run_to_its_end(_copy_first, self._folder(job_id), self._folder(new_id))

    def _model_id(self, start: spec_pb.WarmStartSpec) -> str:
        """Returns the id of the model to start from; empty for a checkpoint. A job that succeeded has only a model."""
        if start.model or not start.checkpoint_of:
            return start.model
        job = self._jobs.get(start.checkpoint_of)
        if job.state == SUCCEEDED and not job.model_id:
            raise ServiceError(Reason.WRONG_STATE, f"job {job.job_id} is a verification, and has left no weights")
        return job.model_id

    def _folder(self, job_id: str) -> CheckpointFolder:
        return CheckpointFolder(self._directory.checkpoints(job_id))


@contextmanager
def _of_model(path: Path, model: models_pb.Model) -> Iterator[Pieces]:
    with ModelFile(path, model.spec, model.sha256) as file:
        yield file.pieces


@contextmanager
def _of_checkpoint(folder: CheckpointFolder) -> Iterator[Pieces]:
    """Opens the parameters of the newest whole checkpoint."""
    checkpoint = _whole_checkpoint(folder)
    with reading_parameters(folder.path_of(checkpoint), checkpoint.sha256) as pieces:
        yield pieces


def _write_first(
    folder: CheckpointFolder, assignment: ps_pb.Assignment, source: AbstractContextManager[Pieces]
) -> None:
    """Writes a checkpoint of step 0 with these weights, in the job's dtype, and the optimizer's first moments."""
    dtype, rule = from_spec.dtype(assignment.spec), from_spec.update_rule(assignment.spec)
    with source as pieces:

        def parameters() -> Iterator[Vector]:
            return (piece.astype(dtype, copy=False) for piece in pieces())

        def moment(number: int) -> Iterator[Vector]:
            return (rule.init(piece).moments[number] for piece in parameters())

        count = len(rule.init(np.empty(0, dtype)).moments)
        moments = [partial(moment, number) for number in range(count)]
        description = {"job_id": assignment.job_id, "attempt": 0, "spec_sha256": spec_digest(assignment)}
        image = first_image(dtype, from_spec.size(assignment.spec), parameters, moments, description)
        with folder.writing(0, 0) as writer:
            for piece in image:
                writer.write(piece)


def _copy_first(folder: CheckpointFolder, target: CheckpointFolder) -> None:
    with folder.path_of(_whole_checkpoint(folder, step=0)).open("rb") as source, target.writing(0, 0) as writer:
        while chunk := source.read(CHUNK_BYTES):
            writer.write(chunk)


def _whole_checkpoint(folder: CheckpointFolder, step: int | None = None) -> jobs_pb.Checkpoint:
    """Returns the newest checkpoint that is whole, or that of a step."""
    damages = []
    for checkpoint in folder.list():
        if step in {None, checkpoint.step}:
            if not checkpoint.damage:
                return checkpoint
            damages.append(checkpoint.damage)
    which = "no checkpoint" if step is None else f"no checkpoint of step {step}"
    sentence = f"job {folder.path.name} has {which} that is whole"
    if damages:
        raise CheckpointError(f"{sentence}: {'; '.join(damages)}; restore it from a backup", job_id=folder.path.name)
    raise ServiceError(Reason.NOT_FOUND, sentence)
