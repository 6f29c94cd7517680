"""JobService."""

from collections.abc import AsyncIterator

from nablad.errors import Violation
from nablad.spec import complete, data_violations, violations
from nablad.spec.names import closest
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import jobs_pb2_grpc as jobs_grpc
from service.controller import Controller
from service.errors import Context, Reason, ServiceError, answer_errors
from service.job_states import ENDED
from service.live import LiveJobs
from service.pages import decode_number, encode_token, page_size
from service.stores.catalogues import DatasetCatalogue
from service.stores.jobs import JobStore

__all__ = ["JobServicer"]


@answer_errors
class JobServicer(jobs_grpc.JobServiceServicer):
    """Jobs as resources."""

    def __init__(self, jobs: JobStore, live: LiveJobs, datasets: DatasetCatalogue, controller: Controller) -> None:
        self._jobs = jobs
        self._live = live
        self._datasets = datasets
        self._controller = controller
        self._going_away = False

    async def CreateJob(self, request: jobs_pb.CreateJobRequest, context: Context) -> jobs_pb.CreateJobResponse:
        """Checks the spec, completes it and queues the job."""
        spec = self._checked(request.spec)
        if request.validate_only:
            return jobs_pb.CreateJobResponse(job=jobs_pb.Job(spec=spec))
        job = self._jobs.create(spec, request.request_id)
        self._controller.wake()
        return jobs_pb.CreateJobResponse(job=job)

    async def GetJob(self, request: jobs_pb.GetJobRequest, context: Context) -> jobs_pb.GetJobResponse:
        """The job with its newest progress."""
        return jobs_pb.GetJobResponse(job=self._current(self._jobs.get(request.job_id)))

    async def ListJobs(self, request: jobs_pb.ListJobsRequest, context: Context) -> jobs_pb.ListJobsResponse:
        """A page of jobs."""
        jobs, rest = self._jobs.page(decode_number(request.page_token), page_size(request.page_size), request.states)
        return jobs_pb.ListJobsResponse(jobs=map(self._current, jobs), next_page_token=encode_token(rest))

    async def WatchJob(
        self, request: jobs_pb.WatchJobRequest, context: Context
    ) -> AsyncIterator[jobs_pb.WatchJobResponse]:
        """Events in order, progress in between."""
        job_id, coming = request.job_id, max(request.from_event, 1)
        told: jobs_pb.Progress | None = None
        while True:
            bell = self._live.bell(job_id)
            ended = self._jobs.get(job_id).state in ENDED
            events = self._jobs.events(job_id, coming)
            for event in events:
                yield jobs_pb.WatchJobResponse(event=event)
                coming = event.number + 1
            if ended and not events:
                return
            progress = self._live.progress(job_id)
            if progress is not None and progress != told and not ended:
                told = progress
                yield jobs_pb.WatchJobResponse(progress=progress)
            if self._going_away:
                raise ServiceError(
                    Reason.GOING_AWAY,
                    f"the service is shutting down: resume from event {coming} when it is back",
                    job_id=job_id,
                    from_event=str(coming),
                )
            if not events:
                await bell.wait()

    async def CancelJob(self, request: jobs_pb.CancelJobRequest, context: Context) -> jobs_pb.CancelJobResponse:
        """Ends a job; its processes are gone when the answer comes."""
        return jobs_pb.CancelJobResponse(job=await self._controller.cancel(request.job_id))

    async def DeleteJob(self, request: jobs_pb.DeleteJobRequest, context: Context) -> jobs_pb.DeleteJobResponse:
        """Forgets a job that has ended."""
        self._jobs.delete(request.job_id)
        self._live.forget(request.job_id)
        return jobs_pb.DeleteJobResponse()

    def go_away(self) -> None:
        """Ends the watches: the service is shutting down."""
        self._going_away = True
        self._live.ring_all()

    def _checked(self, spec: spec_pb.JobSpec) -> spec_pb.JobSpec:
        """The completed spec, if it breaks no rule."""
        found = list(violations(spec))
        names = {field: getattr(spec.data, field) for field in ("train", "validation") if getattr(spec.data, field)}
        sets = {field: self._datasets.find(name) for field, name in names.items()}
        found += [self._unknown(field, name) for field, name in names.items() if sets[field] is None]
        completed = complete(spec, sets.get("train"))
        more = violations(completed)
        if train := sets.get("train"):
            more = [*more, *data_violations(completed, train, sets.get("validation"))]
        told = {violation.field for violation in found}
        found += [violation for violation in more if violation.field not in told]
        if found:
            count = "1 rule" if len(found) == 1 else f"{len(found)} rules"
            raise ServiceError(Reason.INVALID_SPEC, f"the job spec breaks {count}", violations=found)
        return completed

    def _unknown(self, field: str, name: str) -> Violation:
        names = self._datasets.names()
        meant = closest(name, names)
        hint = f'did you mean "{meant}"? ' if meant else ""
        known = ", ".join(names) or "none; add one with `nabla dataset add`"
        return Violation(f"data.{field}", f'there is no data set "{name}"; {hint}registered: {known}')

    def _current(self, job: jobs_pb.Job) -> jobs_pb.Job:
        """The job with the newest progress; one that has ended keeps the figures of its last epoch."""
        if job.state not in ENDED and (progress := self._live.progress(job.job_id)):
            job.progress.CopyFrom(progress)
        return job
