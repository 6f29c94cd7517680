"""From a spec that somebody sends to a job that is queued."""

from nablad.errors import Violation
from nablad.jobspec import merge
from nablad.jobspec.names import closest
from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from service.checkpoints.folder import CheckpointFolder
from service.control.assignments import make_assignment
from service.control.spec_checks import SpecChecks
from service.control.warm_start import WarmStarts
from service.datasets import DatasetError
from service.errors import Reason, ServiceError
from service.events.publisher import EventPublisher
from service.storage.data_directory import DataDirectory
from service.stores.catalogues import DatasetCatalogue
from service.stores.job_states import SUCCEEDED, state_name
from service.stores.jobs import JobStore

__all__ = ["Submission"]


class Submission:
    """Checks specs, completes them, and queues jobs."""

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
        self._checks = SpecChecks()

    async def checked(self, spec: spec_pb.JobSpec) -> spec_pb.JobSpec:
        """The completed spec; the data sets that it names are those of now.

        Raises:
            ServiceError: INVALID_SPEC, with every rule that it breaks.
        """
        while True:
            sets = self._named(spec)
            unknown = [
                self._unknown(field, getattr(spec.data, field)) for field, found in sets.items() if found is None
            ]
            completed, found = await self._checks.check(spec, sets, unknown)
            if self._named(spec) == sets:  # others may come and go meanwhile
                break
        found = merge(found, self._warm_starts.violations(completed))
        if found:
            count = "1 rule" if len(found) == 1 else f"{len(found)} rules"
            raise ServiceError(Reason.INVALID_SPEC, f"the job spec breaks {count}", violations=found)
        return completed

    def _named(self, spec: spec_pb.JobSpec) -> dict[str, datasets_pb.Dataset | None]:
        """The data sets that a spec names, by field."""
        named = {field: getattr(spec.data, field) for field in ("train", "validation")}
        return {field: self._datasets.find(name) for field, name in named.items() if name}

    async def submit(self, spec: spec_pb.JobSpec, request_id: str) -> jobs_pb.Job:
        """Queues the job of a checked spec. A request id that was used before gives the job that it made.

        Raises:
            ServiceError: Of a warm start: NOT_FOUND, or INVALID_DATA when the features cannot be scaled.
            DamagedError: Of a warm start: what it needs is gone, or not what was stored.
        """
        if not spec.training.HasField("warm_start"):
            return self._events.create_job(spec, request_id)
        job_id = self._jobs.new_id(spec)
        try:
            assignment = make_assignment(self._directory, self._datasets, spec, job_id)
            await self._warm_starts.lay_down(assignment)
            job = self._events.create_job(spec, request_id, job_id=job_id)
        except DatasetError as error:
            raise ServiceError(Reason.INVALID_DATA, str(error)) from error
        finally:
            self._clear(job_id)
        return job

    async def verify(self, job_id: str, request_id: str) -> jobs_pb.Job:
        """Queues a job that runs another one again and compares.

        Raises:
            ServiceError: NOT_FOUND, or WRONG_STATE when that one has left no receipt.
        """
        job = self._jobs.get(job_id)
        if job.state != SUCCEEDED or job.verifies or self._jobs.receipt(job_id) is None:
            kind = "a verification" if job.verifies else state_name(job.state)
            raise ServiceError(
                Reason.WRONG_STATE,
                f"only a job that has succeeded, with a receipt, can be verified; job {job_id} is {kind}",
                job_id=job_id,
            )
        self._require_data(job, self._jobs.receipt(job_id))
        spec = spec_pb.JobSpec()
        spec.CopyFrom(job.spec)
        spec.name = f"verify-{spec.name}"[:63]
        # It ends after as many steps, however long they take.
        spec.limits.ClearField("wall_time_seconds")
        new_id = self._jobs.new_id(spec)
        try:
            if spec.training.HasField("warm_start"):
                await self._warm_starts.repeat(job_id, new_id)
            return self._events.create_job(spec, request_id, job_id=new_id, verifies=job_id)
        finally:
            self._clear(new_id)

    def _require_data(self, job: jobs_pb.Job, receipt: jobs_pb.Receipt | None) -> None:
        """Raises WRONG_STATE when the data sets are not those that the receipt names."""
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
        """Removes what was laid down for a job that has not become one after all."""
        if not self._jobs.has(job_id):
            CheckpointFolder(self._directory.checkpoints(job_id)).remove()

    def _unknown(self, field: str, name: str) -> Violation:
        registered = self._datasets.names()
        meant = closest(name, registered)
        hint = f'did you mean "{meant}"? ' if meant else ""
        known = ", ".join(registered) or "none; add one with `nabla dataset add`"
        return Violation(f"data.{field}", f'there is no data set "{name}"; {hint}registered: {known}')
