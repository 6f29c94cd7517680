"""Attempt: one run of a job on its processes, from the newest checkpoint to the model."""

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

import grpc

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import models_pb2 as models_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from service.checkpoints.fetching import CheckpointFetcher
from service.checkpoints.folder import CheckpointFolder
from service.cluster.interfaces import JobProcessesLike
from service.control.assignments import make_assignment, require_intact_data
from service.control.attempt_follower import AttemptFollower
from service.control.interfaces import Ending
from service.control.receipts import code_version, make_receipt
from service.control.verification import Verification
from service.datasets import DatasetError, DatasetVerifier
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
from workers.transport.session import SECRET_KEY, channel_options

__all__ = ["Attempt", "AttemptContext"]

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

# The follower notices a parameter server that hangs.
_ANSWER_SECONDS: Final = 10.0
# A checkpoint after so long proves that the service survives the job.
_PROVEN_SECONDS: Final = 600.0


@dataclass(frozen=True)
class AttemptContext:
    """Stores and folders that all attempts share.

    Attributes:
        directory: The data directory.
        jobs: Store of jobs, events, history and receipts.
        events: Publisher of the jobs' events.
        datasets: Catalogue of the data sets.
        models: Catalogue of the models.
        now: Clock of the time of day.
        verifier: Verifier of the data sets' digests.
    """

    directory: DataDirectory
    jobs: JobStore
    events: EventPublisher
    datasets: DatasetCatalogue
    models: ModelCatalogue
    now: Callable[[], datetime]
    verifier: DatasetVerifier = field(default_factory=DatasetVerifier)


class Attempt:
    """One attempt of a job. Runs once."""

    def __init__(self, context: AttemptContext, job: jobs_pb.Job, processes: JobProcessesLike) -> None:
        """`job` is STARTING on `processes`, which the caller stops."""
        self._context = context
        self._job = job
        self._processes = processes
        self._secret = ((SECRET_KEY, secrets.token_hex(16)),)
        self._folder = CheckpointFolder(context.directory.checkpoints(job.job_id))
        self._stub: ps_grpc.ParameterServerServiceAsyncStub | None = None
        self._checkpoint_fetcher: CheckpointFetcher | None = None
        self._scaling = asyncio.Lock()
        self._failure_reported = False  # that a checkpoint could not be written
        self._start_time = asyncio.get_running_loop().time()

    async def run(self) -> Ending:
        """Trains on the processes and saves the model.

        Raises:
            AttemptFailed: The job cannot succeed.
            AttemptLost: The processes are gone.
            DamagedError: A file or row that the job needs is gone, or not what was stored.
        """
        verification = Verification.for_job(self._job, self._context.jobs)
        assignment = await self._assignment(verification)
        follower = AttemptFollower(
            self._context.jobs, self._context.events, self._job, self._context.now, verification.check_epoch
        )
        failpoint("attempt.starting")
        address = await self._processes.start(assignment, self._secret[0][1])
        options = channel_options(from_spec.message_bytes(assignment))
        async with grpc.aio.insecure_channel(address, options) as channel:
            self._stub = ps_grpc.ParameterServerServiceStub(channel)
            self._checkpoint_fetcher = CheckpointFetcher(
                self._stub,
                self._secret,
                self._folder,
                self._job.attempt,
                follower.wait_until_written,
                self._checkpoint_written,
                self._checkpoint_failed,
            )
            # A client may have scaled the job while its processes were being started.
            await self.scale_workers()
            weights = TrainedWeights(
                self._stub, self._secret, self._context.directory, self._context.models, self._context.now, self._note
            )
            try:
                why = await _first_end(
                    follower.run(self._stub, self._secret),
                    self._processes.wait_for_failure(),
                    self._checkpoint_fetcher.run(),
                )
            finally:
                # The parameter server is not called any more.
                self._stub = self._checkpoint_fetcher = None
            if self._job.verifies:
                sha256 = await weights.compute_digest()
                return Ending(verification.verdict(self._receipt(assignment, follower.progress, sha256, why)))
            model, sha256 = await weights.save_model(assignment, partial(self._enter_metrics, follower))
        self._context.jobs.save_receipt(self._receipt(assignment, follower.progress, sha256, why))
        keeps_best = self._job.spec.training.stopping.keep_best and model.HasField("validation")
        whose = f", with the weights of epoch {model.epoch}" if keeps_best else ""
        return Ending(f"{why}; model {model.model_id} is ready{whose}", model.model_id)

    async def checkpoint(self) -> jobs_pb.Checkpoint | None:
        """Takes a checkpoint now; None before the processes have started and after the training.

        Raises:
            AttemptLost: The parameter server does not answer.
            OSError: The checkpoint cannot be written.
        """
        return await self._checkpoint_fetcher.fetch_now() if self._checkpoint_fetcher else None

    async def scale_workers(self) -> None:
        """Brings the number of workers, at a step boundary, to the number in the job's spec."""
        async with self._scaling:
            if self._stub is None:
                return
            workers = self._context.jobs.get(self._job.job_id).spec.distribution.workers
            # The processes first, because a worker that the parameter server releases must not count as lost.
            await self._processes.scale_workers(workers)
            try:
                request = ps_pb.SetWorkersRequest(workers=workers)
                await self._stub.SetWorkers(request, metadata=self._secret, timeout=_ANSWER_SECONDS)
            except grpc.aio.AioRpcError as error:
                # The next attempt starts with the new number.
                _log.warning(
                    "job %s: could not report the number of workers to the parameter server: %s",
                    self._job.job_id,
                    error.details(),
                )

    async def clean_up(self) -> None:
        """Removes the checkpoints, because no attempt follows."""
        try:
            await run_to_its_end(self._folder.clear)
        except OSError as error:
            _log.warning("job %s: its checkpoints stay until the next start: %s", self._job.job_id, error)

    # -- start of the attempt ------------------------------------------------------------------------------------------

    async def _assignment(self, verification: Verification) -> ps_pb.Assignment:
        job, context = self._job, self._context
        try:
            assignment = make_assignment(context.directory, context.datasets, job.spec, job.job_id, job.attempt)
        except (ServiceError, DatasetError) as error:
            raise AttemptFailed(str(error)) from error
        await require_intact_data(assignment, context.verifier)
        verification.prepare_assignment(assignment)
        await self._start_from_checkpoint(assignment)
        return assignment

    async def _start_from_checkpoint(self, assignment: ps_pb.Assignment) -> None:
        """Makes the assignment start from the newest whole checkpoint, if there is one."""
        checkpoint, skipped = await run_to_its_end(self._folder.newest, spec_digest(assignment))
        step = checkpoint.step if checkpoint else 0
        for sentence in skipped:
            self._note(f"{sentence}; the job {f'goes on from step {step}' if checkpoint else 'begins anew'}")
        # History beyond the checkpoint is written again, and must not stay if this attempt ends earlier.
        self._context.jobs.rewind_history(self._job.job_id, step)
        if checkpoint is not None:
            path = self._folder.path_of(checkpoint)
            assignment.start.CopyFrom(ps_pb.CheckpointSource(path=str(path), sha256=checkpoint.sha256))
            resumed = AttemptResumed(self._job.job_id, self._job.attempt, checkpoint.step)
            self._context.events.publish_best_effort(resumed)
        elif self._job.spec.training.HasField("warm_start"):
            raise AttemptFailed(
                "the weights that the job was to start from are damaged: submit it again",
                kind=jobs_pb.FAILURE_KIND_DETERMINISTIC,
            )

    # -- records of the attempt ----------------------------------------------------------------------------------------

    def _receipt(
        self, assignment: ps_pb.Assignment, progress: jobs_pb.Progress, sha256: str, ending: str
    ) -> jobs_pb.Receipt:
        jobs, job_id = self._context.jobs, self._job.job_id
        return make_receipt(
            assignment,
            self._unless_damaged(lambda: jobs.receipt(job_id), None),
            code_version=code_version(),
            epoch_weights_sha256=self._unless_damaged(lambda: jobs.epoch_digests(job_id), []),
            final_weights_sha256=sha256,
            progress=progress,
            ending=ending,
        )

    def _enter_metrics(self, follower: AttemptFollower, model: models_pb.Model, weights_sha256: str) -> None:
        """Enters the metrics of the epoch that ended with these weights, which need not be the last one."""
        jobs, job_id = self._context.jobs, self._job.job_id
        epoch = self._unless_damaged(lambda: jobs.epoch_with_weights(job_id, weights_sha256), None)
        known = epoch or follower.progress
        model.epoch = known.epoch
        model.training.CopyFrom(known.training)
        if known.HasField("validation"):
            model.validation.CopyFrom(known.validation)

    def _unless_damaged(self, read: Callable[[], _Result], otherwise: _Result) -> _Result:
        """Returns what `read` returns, or `otherwise` with a notice: a damaged row must not lose a training."""
        try:
            return read()
        except DatabaseRowError as damage:
            if self._job.verifies:  # without the row there is nothing to compare
                raise
            self._note(f"{damage}; the model and its receipt are kept without it")
            return otherwise

    def _checkpoint_written(self, checkpoint: jobs_pb.Checkpoint, seconds: float) -> None:
        failpoint("checkpoint.noted")
        self._failure_reported = False
        now = self._context.now().timestamp()
        written = CheckpointWritten(self._job.job_id, checkpoint, seconds, now)
        self._context.events.publish_best_effort(written)
        ran = asyncio.get_running_loop().time() - self._start_time
        self._context.jobs.reset_lost_attempts(self._job.job_id, proven=ran >= _PROVEN_SECONDS)

    def _checkpoint_failed(self, why: str) -> None:
        message = (
            f"a checkpoint could not be written: {why}; the training goes on, the checkpoints before are kept, and it "
            "is tried again until there is room"
        )
        failed = CheckpointFailed(self._job.job_id, "" if self._failure_reported else message)
        self._failure_reported = True
        self._context.events.publish_best_effort(failed)

    def _note(self, message: str) -> None:
        self._context.events.publish_best_effort(Notice(self._job.job_id, message))


async def _first_end(
    following: Coroutine[None, None, str],
    failure: Coroutine[None, None, Any],
    fetching: Coroutine[None, None, None],
) -> str:
    """Returns the ending of the training, or raises the failure of a process; fetches checkpoints meanwhile."""
    end, fail = asyncio.ensure_future(following), asyncio.ensure_future(failure)
    keep = asyncio.ensure_future(fetching)
    try:
        waiting = {end, fail, keep}
        while not end.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {end}:
                task.result()  # raises what ends the attempt; the checkpoint fetcher just returns
        return end.result()
    finally:
        # All tasks end before this returns, so that nothing is written about a job that is not followed any more.
        for task in (end, fail, keep):
            task.cancel()
        await asyncio.gather(end, fail, keep, return_exceptions=True)
