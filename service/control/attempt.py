"""One attempt of a job: starts its fleet, follows the parameter server, and keeps checkpoints and the model."""

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import models_pb2 as models_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from service.checkpoints.fetching import Checkpointing
from service.checkpoints.folder import CheckpointFolder
from service.cluster.interfaces import JobProcessesLike
from service.control.assignments import make_assignment
from service.control.attempt_follower import AttemptFollower
from service.control.interfaces import Ending
from service.control.receipts import code_version, make_receipt
from service.control.verification import Verification
from service.datasets import DatasetError, StoredDatasets
from service.errors import AttemptFailed, DatabaseRowError, ServiceError
from service.events.job_events import AttemptResumed, CheckpointFailed, CheckpointWritten, Notice
from service.events.publisher import EventPublisher
from service.models.trained_weights import TrainedWeights
from service.storage.data_directory import DataDirectory
from service.stores.catalogues import DatasetCatalogue, ModelCatalogue
from service.stores.jobs import JobStore
from workers import from_spec
from workers.from_spec import spec_digest
from workers.runtime.concurrency import run_to_its_end
from workers.runtime.failpoints import failpoint
from workers.worker import SECRET_KEY, channel_options

__all__ = ["Attempt", "Records"]

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

# A parameter server that hangs is noticed elsewhere.
_ANSWER_SECONDS: Final = 10.0
# A checkpoint after so long shows that the service can live with the job.
_PROVEN_SECONDS: Final = 600.0


@dataclass(frozen=True)
class Records:
    """What attempts read and write.

    Attributes:
        now: The time.
        stored: Compares data sets with their digests.
    """

    directory: DataDirectory
    jobs: JobStore
    events: EventPublisher
    datasets: DatasetCatalogue
    models: ModelCatalogue
    now: Callable[[], datetime]
    stored: StoredDatasets = field(default_factory=StoredDatasets)


class Attempt:
    """Runs once."""

    def __init__(self, records: Records, job: jobs_pb.Job, fleet: JobProcessesLike) -> None:
        """`job` has just been launched on `fleet`, which is somebody else's to stop."""
        self._records = records
        self._job = job
        self._fleet = fleet
        self._secret = ((SECRET_KEY, secrets.token_hex(16)),)
        self._folder = CheckpointFolder(records.directory.checkpoints(job.job_id))
        self._stub: ps_grpc.ParameterServerServiceAsyncStub | None = None
        self._checkpointing: Checkpointing | None = None
        self._scaling = asyncio.Lock()
        self._complained = False  # of a checkpoint that could not be written
        self._begun = asyncio.get_running_loop().time()

    async def run(self) -> Ending:
        """Trains on the fleet and keeps the model.

        Raises:
            AttemptFailed: The job cannot succeed.
            AttemptLost: Its processes are gone.
            DamagedError: What it needs is gone, or not what was stored.
        """
        verification = Verification.of(self._job, self._records.jobs)
        assignment = await self._assignment(verification)
        follower = AttemptFollower(
            self._records.jobs, self._records.events, self._job, self._records.now, verification.check_epoch
        )
        failpoint("attempt.starting")
        address = await self._fleet.start(assignment, self._secret[0][1])
        options = channel_options(from_spec.message_bytes(assignment))
        async with grpc.aio.insecure_channel(address, options) as channel:
            self._stub = ps_grpc.ParameterServerServiceStub(channel)
            self._checkpointing = Checkpointing(
                self._stub,
                self._secret,
                self._folder,
                self._job.attempt,
                follower.written,
                self._checkpoint_written,
                self._not_written,
            )
            # A number of workers that was asked for while the processes were being started.
            await self.scale_workers()
            weights = TrainedWeights(
                self._stub, self._secret, self._records.directory, self._records.models, self._records.now, self._note
            )
            try:
                why = await _first_end(
                    follower.run(self._stub, self._secret), self._fleet.wait_for_failure(), self._checkpointing.run()
                )
            finally:
                # Nobody is to be asked any more.
                self._stub = self._checkpointing = None
            if self._job.verifies:
                sha256 = await weights.digest()
                return Ending(verification.verdict(self._receipt(assignment, follower.progress.step, sha256, why)))
            model, sha256 = await weights.keep(assignment, partial(self._enter_metrics, follower))
        self._records.jobs.keep_receipt(self._receipt(assignment, follower.progress.step, sha256, why))
        keeps_best = self._job.spec.training.stopping.keep_best and model.HasField("validation")
        whose = f", with the weights of epoch {model.epoch}" if keeps_best else ""
        return Ending(f"{why}; model {model.model_id} is ready{whose}", model.model_id)

    async def checkpoint(self) -> jobs_pb.Checkpoint | None:
        """Takes a checkpoint now; None before the processes have started and after the training.

        Raises:
            AttemptLost: The parameter server does not answer.
            OSError: The checkpoint cannot be written.
        """
        return await self._checkpointing.take() if self._checkpointing else None

    async def scale_workers(self) -> None:
        """Brings the number of workers, at a step boundary, to what the job asks for by now."""
        async with self._scaling:
            if self._stub is None:
                return
            workers = self._records.jobs.get(self._job.job_id).spec.distribution.workers
            # First: who is let go by the parameter server must not be taken for the end of the training.
            await self._fleet.scale_workers(workers)
            try:
                request = ps_pb.SetWorkersRequest(workers=workers)
                await self._stub.SetWorkers(request, metadata=self._secret, timeout=_ANSWER_SECONDS)
            except grpc.aio.AioRpcError as error:
                # The next attempt starts with the new number.
                _log.warning(
                    "job %s: the parameter server did not hear of its workers: %s", self._job.job_id, error.details()
                )

    async def clean_up(self) -> None:
        """Removes the checkpoints: nobody goes on from them any more."""
        try:
            await run_to_its_end(self._folder.clear)
        except OSError as error:
            _log.warning("job %s: its checkpoints are left until the next start: %s", self._job.job_id, error)

    # -- where it begins -----------------------------------------------------------------------------------------------

    async def _assignment(self, verification: Verification) -> ps_pb.Assignment:
        job, records = self._job, self._records
        try:
            assignment = make_assignment(records.directory, records.datasets, job.spec, job.job_id, job.attempt)
        except (ServiceError, DatasetError) as error:
            raise AttemptFailed(str(error)) from error
        for source in (assignment.train, assignment.validation):
            if source.directory:
                # On another thread: a large one takes seconds to read.
                await run_to_its_end(records.stored.require_intact, source.dataset, Path(source.directory))
        verification.prepare(assignment)
        await self._start_from_checkpoint(assignment)
        return assignment

    async def _start_from_checkpoint(self, assignment: ps_pb.Assignment) -> None:
        """With the newest one that is whole, if there is one."""
        checkpoint, skipped = await run_to_its_end(self._folder.newest, spec_digest(assignment))
        step = checkpoint.step if checkpoint else 0
        for sentence in skipped:
            self._note(f"{sentence}; the job {f'goes on from step {step}' if checkpoint else 'begins anew'}")
        # What is done again is told again; what this attempt does not come to must not stay.
        self._records.jobs.rewind(self._job.job_id, step)
        if checkpoint is not None:
            path = self._folder.path_of(checkpoint)
            assignment.start.CopyFrom(ps_pb.CheckpointSource(path=str(path), sha256=checkpoint.sha256))
            resumed = AttemptResumed(self._job.job_id, self._job.attempt, checkpoint.step)
            self._records.events.publish_best_effort(resumed)
        elif self._job.spec.training.HasField("warm_start"):
            raise AttemptFailed(
                "the weights that the job was to start from are damaged: submit it again",
                kind=jobs_pb.FAILURE_KIND_DETERMINISTIC,
            )

    # -- what it keeps -------------------------------------------------------------------------------------------------

    def _receipt(self, assignment: ps_pb.Assignment, steps: int, sha256: str, ending: str) -> jobs_pb.Receipt:
        jobs, job_id = self._records.jobs, self._job.job_id
        return make_receipt(
            assignment,
            self._unless_damaged(lambda: jobs.receipt(job_id), None),
            code_version=code_version(),
            epoch_weights_sha256=self._unless_damaged(lambda: jobs.epoch_digests(job_id), []),
            final_weights_sha256=sha256,
            steps=steps,
            ending=ending,
        )

    def _enter_metrics(self, follower: AttemptFollower, model: models_pb.Model, weights_sha256: str) -> None:
        """Enters the metrics of the epoch that left these weights, which need not be the last one."""
        jobs, job_id = self._records.jobs, self._job.job_id
        best = self._unless_damaged(lambda: jobs.epoch_with(job_id, weights_sha256), None)
        known = best or follower.progress
        model.epoch = known.epoch
        model.training.CopyFrom(known.training)
        if known.HasField("validation"):
            model.validation.CopyFrom(known.validation)

    def _unless_damaged(self, read: Callable[[], _Result], otherwise: _Result) -> _Result:
        """What is read; a training that is done is not lost for a row that is damaged, but an event says what was."""
        try:
            return read()
        except DatabaseRowError as damage:
            if self._job.verifies:  # a comparison without it would say nothing
                raise
            self._note(f"{damage}; the model and its receipt are kept without it")
            return otherwise

    def _checkpoint_written(self, checkpoint: jobs_pb.Checkpoint, seconds: float) -> None:
        failpoint("checkpoint.noted")
        self._complained = False
        now = self._records.now().timestamp()
        written = CheckpointWritten(self._job.job_id, checkpoint, seconds, now)
        self._records.events.publish_best_effort(written)
        ran = asyncio.get_running_loop().time() - self._begun
        self._records.jobs.forget_losses(self._job.job_id, proven=ran >= _PROVEN_SECONDS)

    def _not_written(self, why: str) -> None:
        message = (
            f"a checkpoint could not be written: {why}; the training goes on, the checkpoints before are kept, and it "
            "is tried again until there is room"
        )
        failed = CheckpointFailed(self._job.job_id, "" if self._complained else message)
        self._complained = True
        self._records.events.publish_best_effort(failed)

    def _note(self, message: str) -> None:
        self._records.events.publish_best_effort(Notice(self._job.job_id, message))


async def _first_end(
    following: Coroutine[None, None, str],
    failure: Coroutine[None, None, Any],
    checkpointing: Coroutine[None, None, None],
) -> str:
    """Follows to the end, with checkpoints meanwhile, unless a process of the fleet fails for good before."""
    end, fail = asyncio.ensure_future(following), asyncio.ensure_future(failure)
    keep = asyncio.ensure_future(checkpointing)
    try:
        waiting = {end, fail, keep}
        while not end.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {end}:
                task.result()  # raises what ends the attempt; checkpoints merely come to their end
        return end.result()
    finally:
        # All have ended when this returns: nothing is written down of a job that is not followed any more.
        for task in (end, fail, keep):
            task.cancel()
        await asyncio.gather(end, fail, keep, return_exceptions=True)
