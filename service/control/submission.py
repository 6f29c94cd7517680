"""Submission: validates the spec that a client sends, and queues the job."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from nablad.errors import Violation
from nablad.jobspec import Checked, JobDatasets, check, merge
from nablad.jobspec.names import closest, name_of
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from service.checkpoints.folder import CheckpointFolder
from service.control.assignments import make_assignment
from service.control.warm_start import WarmStarts
from service.datasets import DatasetError
from service.errors import Reason, ServiceError
from service.events.publisher import EventPublisher
from service.parameter_server.scheduling.policies import policy_of
from service.storage.data_directory import DataDirectory
from service.stores.catalogues import DatasetCatalogue
from service.stores.job_states import SUCCEEDED, state_name
from service.stores.jobs import JobStore

__all__ = ["Submission"]

# The check of a large spec takes a good part of a second.
_SMALL_SPEC_BYTES: Final = 16 << 10


class Submission:
    """Validates specs, completes them with defaults, and queues jobs."""

    def __init__(
        self,
        directory: DataDirectory,
        jobs: JobStore,
        events: EventPublisher,
        datasets: DatasetCatalogue,
        warm_starts: WarmStarts,
    ) -> None:
        self._directory = directory
        self._jobs = jobs
        self._events = events
        self._datasets = datasets
        self._warm_starts = warm_starts
        self._spec_checker = _SpecChecker()

    async def validate_spec(self, spec: spec_pb.JobSpec) -> spec_pb.JobSpec:
        """Returns the completed spec, checked with the data sets that are registered now.

        Raises:
            ServiceError: INVALID_SPEC, with every violation.
        """
        while True:
            datasets = self._registered(spec)
            completed, found = await self._spec_checker.check(spec, datasets)
            if self._registered(spec) == datasets:  # data sets may be added and deleted meanwhile
                break
        found = merge(found, self._unknown_names(spec, datasets))
        found = merge(found, self._warm_starts.violations(completed))
        if found:
            count = "1 rule" if len(found) == 1 else f"{len(found)} rules"
            raise ServiceError(Reason.INVALID_SPEC, f"the job spec breaks {count}", violations=found)
        return completed

    def _registered(self, spec: spec_pb.JobSpec) -> JobDatasets:
        """Returns the registered ones among the data sets that a spec names."""
        names = (spec.data.train, spec.data.validation)
        return JobDatasets(*(self._datasets.find(name) if name else None for name in names))

    def _unknown_names(self, spec: spec_pb.JobSpec, datasets: JobDatasets) -> Iterator[Violation]:
        """Yields a violation for each data set that a spec names and that is not registered."""
        for field, found in datasets._asdict().items():
            name = getattr(spec.data, field)
            if not name or found is not None:
                continue
            registered = self._datasets.names()
            meant = closest(name, registered)
            hint = f'did you mean "{meant}"? ' if meant else ""
            known = ", ".join(registered) or "none; add one with `nabla dataset add`"
            yield Violation(f"data.{field}", f'there is no data set "{name}"; {hint}registered: {known}')

    async def submit_job(self, spec: spec_pb.JobSpec, request_id: str) -> jobs_pb.Job:
        """Queues the job of a checked spec. For a known request id, returns the job that it created.

        Raises:
            ServiceError: NOT_FOUND: the source of its warm start is gone; INVALID_DATA: its features cannot be scaled.
            DamagedError: The source of its warm start is damaged.
        """
        if not spec.training.HasField("warm_start"):
            return self._events.create_job(spec, request_id)
        job_id = self._jobs.new_job_id(spec)
        try:
            assignment = make_assignment(self._directory, self._datasets, spec, job_id)
            await self._warm_starts.write_first_checkpoint(assignment)
            job = self._events.create_job(spec, request_id, job_id=job_id)
        except DatasetError as error:
            raise ServiceError(Reason.INVALID_DATA, str(error)) from error
        finally:
            self._clear(job_id)
        return job

    async def submit_verification(self, job_id: str, request_id: str) -> jobs_pb.Job:
        """Queues a job that runs another one again and compares the results.

        Raises:
            ServiceError: NOT_FOUND, or WRONG_STATE if the other job left no receipt or its policy promises no bits.
        """
        job = self._jobs.get(job_id)
        if job.state != SUCCEEDED or job.verifies or self._jobs.receipt(job_id) is None:
            kind = "a verification" if job.verifies else state_name(job.state)
            raise ServiceError(
                Reason.WRONG_STATE,
                f"only a job that has succeeded, with a receipt, can be verified; job {job_id} is {kind}",
                job_id=job_id,
            )
        if not policy_of(job.spec).exact:
            policy = name_of(spec_pb.Policy.DESCRIPTOR, job.spec.distribution.policy.name)
            raise ServiceError(
                Reason.WRONG_STATE,
                f"job {job_id} cannot be verified: with the policy {policy} its weights depend on which results came "
                "in time, so that a second run ends with others; a job with the policy sync can be verified",
                job_id=job_id,
            )
        self._require_data(job, self._jobs.receipt(job_id))
        spec = spec_pb.JobSpec()
        spec.CopyFrom(job.spec)
        spec.name = f"verify-{spec.name}"[:63]
        # A verification ends after the steps of its original, however long they take.
        spec.limits.ClearField("wall_time_seconds")
        new_id = self._jobs.new_job_id(spec)
        try:
            if spec.training.HasField("warm_start"):
                await self._warm_starts.copy_first_checkpoint(job_id, new_id)
            return self._events.create_job(spec, request_id, job_id=new_id, verifies=job_id)
        finally:
            self._clear(new_id)

    def _require_data(self, job: jobs_pb.Job, receipt: jobs_pb.Receipt | None) -> None:
        """Raises WRONG_STATE unless the data sets are those of the receipt."""
        for field in ("train", "validation"):
            name = getattr(job.spec.data, field)
            dataset = self._datasets.find(name) if name else None
            if (dataset.sha256 if dataset else "") != getattr(receipt, f"{field}_sha256"):
                raise ServiceError(
                    Reason.WRONG_STATE,
                    f"the data set {name!r} is gone, or not the one that job {job.job_id} was trained with: add that "
                    "one again under its name",
                    job_id=job.job_id,
                    dataset=name,
                )

    def _clear(self, job_id: str) -> None:
        """Removes the first checkpoint of a job that was not created after all."""
        if not self._jobs.has(job_id):
            CheckpointFolder(self._directory.checkpoints(job_id)).remove()


class _SpecChecker:
    """Checks specs on two threads of its own, beside the event loop.

    One thread is for large specs, because several of them would take the interpreter from the event loop in turns. The
    other one is for small specs, so that they do not wait for large ones.
    """

    def __init__(self) -> None:
        """Starts no thread before it is needed."""
        self._small = ThreadPoolExecutor(1, "check-small-spec")
        self._large = ThreadPoolExecutor(1, "check-large-spec")

    async def check(self, spec: spec_pb.JobSpec, datasets: JobDatasets) -> Checked:
        """Returns `check(spec, datasets)`; neither may change meanwhile."""
        thread = self._small if spec.ByteSize() <= _SMALL_SPEC_BYTES else self._large
        return await asyncio.get_running_loop().run_in_executor(thread, check, spec, datasets)
