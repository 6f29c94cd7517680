"""JobService."""

from collections.abc import AsyncIterator, Sequence

from nablad.errors import Violation
from nablad.spec import complete, data_violations, merge, violations
from nablad.spec.names import closest, names, one_of
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import jobs_pb2_grpc as jobs_grpc
from service.boundary import Context, answer_errors
from service.controller import Controller
from service.errors import Reason, ServiceError
from service.job_states import ENDED, MOVES, State
from service.live import LiveJobs
from service.pages import decode_number, encode_token, page_size
from service.stores.catalogues import DatasetCatalogue
from service.stores.jobs import JobStore

__all__ = ["JobServicer"]

# A job is part of every list and of every answer about it, and those must stay below gRPC's 4 MiB.
_MOST_SPEC_BYTES = 1 << 20
_LONGEST_REQUEST_ID = 128
# The largest number that the database knows.
_LAST_EVENT = (1 << 63) - 1


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
        _check_size(request)
        if not request.validate_only and (known := self._jobs.requested(request.request_id)):
            return jobs_pb.CreateJobResponse(job=known)
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
        position, most = decode_number(request.page_token), page_size(request.page_size)
        jobs, rest = self._jobs.page(position, most, _known(request.states))
        return jobs_pb.ListJobsResponse(jobs=map(self._current, jobs), next_page_token=encode_token(rest))

    async def WatchJob(
        self, request: jobs_pb.WatchJobRequest, context: Context
    ) -> AsyncIterator[jobs_pb.WatchJobResponse]:
        """Events in order, progress in between."""
        job_id, coming = request.job_id, min(max(request.from_event, 1), _LAST_EVENT)
        told: jobs_pb.Progress | None = None
        while True:
            # The bell is taken before anything is looked at, so that nothing is missed in between.
            ended = self._jobs.get(job_id).state in ENDED
            bell = None if ended else self._live.bell(job_id)
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
            if not events and bell:
                await bell.wait()

    async def CancelJob(self, request: jobs_pb.CancelJobRequest, context: Context) -> jobs_pb.CancelJobResponse:
        """Ends a job; its processes are told to end before the answer comes."""
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
        named = {field: getattr(spec.data, field) for field in ("train", "validation")}
        sets = {field: self._datasets.find(name) for field, name in named.items() if name}
        unknown = [self._unknown(field, named[field]) for field, dataset in sets.items() if dataset is None]
        found = merge(violations(spec), unknown)
        completed = complete(spec, sets.get("train"))
        found = merge(found, violations(completed))
        if train := sets.get("train"):
            found = merge(found, data_violations(completed, train, sets.get("validation")))
        if found:
            count = "1 rule" if len(found) == 1 else f"{len(found)} rules"
            raise ServiceError(Reason.INVALID_SPEC, f"the job spec breaks {count}", violations=found)
        return completed

    def _unknown(self, field: str, name: str) -> Violation:
        registered = self._datasets.names()
        meant = closest(name, registered)
        hint = f'did you mean "{meant}"? ' if meant else ""
        known = ", ".join(registered) or "none; add one with `nabla dataset add`"
        return Violation(f"data.{field}", f'there is no data set "{name}"; {hint}registered: {known}')

    def _current(self, job: jobs_pb.Job) -> jobs_pb.Job:
        """The job with the newest progress; one that has ended keeps the figures of its last epoch."""
        if job.state not in ENDED and (progress := self._live.progress(job.job_id)):
            job.progress.CopyFrom(progress)
        return job


def _check_size(request: jobs_pb.CreateJobRequest) -> None:
    if (came := request.spec.ByteSize()) > _MOST_SPEC_BYTES:
        raise ServiceError(
            Reason.TOO_LARGE,
            f"the job spec has {came:,} bytes, but the service takes at most {_MOST_SPEC_BYTES:,}: "
            "give a shorter one, with fewer nodes in cost.inner",
        )
    if (length := len(request.request_id)) > _LONGEST_REQUEST_ID:
        violation = Violation("request_id", f"got {length} characters; allowed: at most {_LONGEST_REQUEST_ID}")
        raise ServiceError(Reason.INVALID_REQUEST, "the request id is too long: give a UUID", violations=[violation])


def _known(states: Sequence[State]) -> frozenset[State]:
    """The states without repetition, if there are such states."""
    unknown = frozenset(states) - MOVES.keys()
    if unknown:
        message = f"got {min(unknown)}; {one_of(names(jobs_pb.JobState.DESCRIPTOR))}"
        violation = Violation("states", message)
        raise ServiceError(Reason.INVALID_REQUEST, "there is no such state", violations=[violation])
    return frozenset(states)
