"""One attempt of a job: starts its fleet, follows the parameter server, and keeps the model."""

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine
from datetime import datetime

import grpc
import numpy as np

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import models_pb2 as models_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from service.controller import FleetLike
from service.data_directory import DataDirectory
from service.datasets import DatasetError, fit_scaling
from service.errors import ServiceError
from service.live import LiveJobs
from service.model_files import save_model
from service.outcomes import AttemptFailed, AttemptLost
from service.stores.catalogues import DatasetCatalogue, ModelCatalogue
from service.stores.jobs import JobStore
from service.waiting import run_to_its_end
from workers import build
from workers.worker import SECRET_KEY, channel_options

__all__ = ["AttemptRunner"]

# A parameter server that does not answer for so long is taken for lost.
_SILENCE_SECONDS = 10.0
_RETRY_SECONDS = 0.5
# Epochs that end faster than this are written down together.
_WRITE_SECONDS = 0.1


class AttemptRunner:
    """Runs attempts, one call each."""

    def __init__(
        self,
        directory: DataDirectory,
        jobs: JobStore,
        live: LiveJobs,
        datasets: DatasetCatalogue,
        models: ModelCatalogue,
        now: Callable[[], datetime],
    ) -> None:
        self._directory = directory
        self._jobs = jobs
        self._live = live
        self._datasets = datasets
        self._models = models
        self._now = now

    async def __call__(self, job: jobs_pb.Job, fleet: FleetLike) -> str:
        """Trains on the fleet and keeps the model; gives its id.

        Raises:
            AttemptFailed: The job cannot succeed.
            AttemptLost: Its processes are gone.
        """
        assignment = self._assignment(job)
        secret = secrets.token_hex(16)
        address = await fleet.start(assignment, secret)
        options = channel_options(build.message_bytes(assignment))
        async with grpc.aio.insecure_channel(address, options) as channel:
            stub = ps_grpc.ParameterServerServiceStub(channel)
            following = _Following(self._jobs, self._live, job.job_id, stub, secret)
            await _until_failure(following.run(), fleet)
            parameters = await _fetch_weights(stub, secret)
        # On another thread: a large model takes a while to reach the disk.
        try:
            model = await run_to_its_end(self._save, assignment, following.progress, parameters)
        except asyncio.CancelledError:
            self._directory.model(job.job_id).unlink(missing_ok=True)
            raise
        self._models.add(model)
        return model.model_id

    def _assignment(self, job: jobs_pb.Job) -> ps_pb.Assignment:
        data = job.spec.data
        try:
            return ps_pb.Assignment(
                job_id=job.job_id,
                attempt=job.attempt,
                spec=job.spec,
                train=self._source(data.train),
                validation=self._source(data.validation) if data.validation else None,
                scaling=fit_scaling(data.scaling, self._directory.dataset(data.train)),
            )
        except (ServiceError, DatasetError) as error:
            raise AttemptFailed(str(error)) from error

    def _source(self, name: str) -> ps_pb.DataSource:
        return ps_pb.DataSource(dataset=self._datasets.get(name), directory=str(self._directory.dataset(name)))

    def _save(self, assignment: ps_pb.Assignment, progress: jobs_pb.Progress, parameters: bytes) -> models_pb.Model:
        path = self._directory.model(assignment.job_id)
        vector = np.frombuffer(parameters, build.dtype(assignment.spec))
        model = models_pb.Model(
            model_id=assignment.job_id,
            spec=assignment.spec,
            sha256=save_model(path, assignment, vector),
            size_bytes=path.stat().st_size,
            training_cost=progress.training_cost,
            classes=assignment.train.dataset.classes,
        )
        for name in ("validation_cost", "validation_accuracy"):
            if progress.HasField(name):
                setattr(model, name, getattr(progress, name))
        model.create_time.FromDatetime(self._now())
        return model


class _Following:
    """Reads what the parameter server tells, and writes it down."""

    def __init__(
        self,
        jobs: JobStore,
        live: LiveJobs,
        job_id: str,
        stub: "ps_grpc.ParameterServerServiceAsyncStub",
        secret: str,
    ) -> None:
        self.progress = jobs_pb.Progress()
        self._jobs = jobs
        self._live = live
        self._job_id = job_id
        self._stub = stub
        self._metadata = ((SECRET_KEY, secret),)
        self._seen = 0
        self._running = False
        self._epoch_ends: list[tuple[jobs_pb.Progress, str]] = []
        self._written = 0.0
        self._silent_since: float | None = None

    async def run(self) -> None:
        """Returns when the training has finished."""
        while True:
            try:
                async for told in self._stub.Follow(ps_pb.FollowRequest(seen=self._seen), metadata=self._metadata):
                    self._silent_since = None
                    if self._write_down(told):
                        return
            except grpc.aio.AioRpcError as error:
                self._silent_since = self._silent_since or time.monotonic()
                if time.monotonic() - self._silent_since > _SILENCE_SECONDS:
                    raise AttemptLost(f"the parameter server was lost: {error.details()}") from error
            await asyncio.sleep(_RETRY_SECONDS)

    def _write_down(self, told: ps_pb.FollowResponse) -> bool:
        """Whether this was the end."""
        self.progress = told.progress
        happening = told.WhichOneof("happening")
        if happening != "epoch_end" or time.monotonic() - self._written > _WRITE_SECONDS:
            self._write_epoch_ends()
        self._live.update(self._job_id, told.progress, told.telemetry)
        if happening is None:
            return False
        self._seen += 1
        if happening == "worker_joined":
            self._worker_joined(told.worker_joined)
        elif happening == "worker_lost":
            self._jobs.worker_event(self._job_id, told.worker_lost, joined=False)
        elif happening == "epoch_end":
            self._epoch_ends.append((told.epoch_end, _epoch_sentence(told.epoch_end)))
        elif happening == "failed":
            raise AttemptFailed(told.failed)
        self._live.ring(self._job_id)
        return happening == "finished"

    def _write_epoch_ends(self) -> None:
        """In one transaction: each one waits for the disk, and tiny epochs end faster than that."""
        if self._epoch_ends:
            self._jobs.end_epochs(self._job_id, self._epoch_ends)
            self._epoch_ends = []
            self._written = time.monotonic()
            self._live.ring(self._job_id)

    def _worker_joined(self, sentence: str) -> None:
        if not self._running:
            self._running = True
            self._jobs.move(self._job_id, jobs_pb.JOB_STATE_RUNNING, "the first worker has joined")
        self._jobs.worker_event(self._job_id, sentence, joined=True)


async def _until_failure(following: Coroutine[None, None, None], fleet: FleetLike) -> None:
    """Follows to the end, unless a process of the fleet fails for good before."""
    end, failure = asyncio.ensure_future(following), asyncio.ensure_future(fleet.failure())
    try:
        await asyncio.wait([end, failure], return_when=asyncio.FIRST_COMPLETED)
        (end if end.done() else failure).result()
    finally:
        # Both have ended when this returns: nothing is written down of a job that is not followed any more.
        end.cancel()
        failure.cancel()
        await asyncio.gather(end, failure, return_exceptions=True)


async def _fetch_weights(stub: "ps_grpc.ParameterServerServiceAsyncStub", secret: str) -> bytes:
    try:
        call = stub.FetchWeights(ps_pb.FetchWeightsRequest(), metadata=((SECRET_KEY, secret),))
        return b"".join([response.chunk async for response in call])
    except grpc.aio.AioRpcError as error:
        raise AttemptLost(
            f"the parameter server was lost before its weights were fetched: {error.details()}"
        ) from error


def _epoch_sentence(progress: jobs_pb.Progress) -> str:
    parts = [f"epoch {progress.epoch} of {progress.epochs}: training cost {progress.training_cost:.6g}"]
    if progress.HasField("training_accuracy"):
        parts.append(f"accuracy {progress.training_accuracy:.2%}")
    if progress.HasField("validation_cost"):
        parts.append(f"validation cost {progress.validation_cost:.6g}")
    if progress.HasField("validation_accuracy"):
        parts.append(f"accuracy {progress.validation_accuracy:.2%}")
    return ", ".join(parts)
