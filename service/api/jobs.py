"""JobService: jobs as resources, and the commands of clients."""

from collections.abc import AsyncIterator, Sequence

from nablad.errors import Violation
from nablad.jobspec.names import names, one_of
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import jobs_pb2_grpc as jobs_grpc
from service.checkpoints.folder import CheckpointFolder
from service.cluster.capacity import NodeCache
from service.control.controller import Controller
from service.control.job_warnings import job_warnings
from service.control.submission import Submission
from service.errors import Reason, ServiceError
from service.events.live_status import LiveStatus
from service.events.watches import Watches
from service.rpc.error_translation import Context, answer_errors
from service.rpc.pagination import decode_number, encode_token, page_size
from service.storage.data_directory import DataDirectory
from service.stores.job_states import QUEUED, TRANSITIONS, State
from service.stores.jobs import JobStore
from workers.runtime.concurrency import run_to_its_end

__all__ = ["JobServicer"]

# A spec is part of every answer about its job, and answers must stay below gRPC's 4 MiB.
_MOST_SPEC_BYTES = 1 << 20
_LONGEST_REQUEST_ID = 128
_MOST_WORKERS = 10_000
# Number of events in the answer of GetJob.
_RECENT_EVENTS = 20


@answer_errors
class JobServicer(jobs_grpc.JobServiceServicer):
    """Serves jobs."""

    def __init__(
        self,
        directory: DataDirectory,
        jobs: JobStore,
        live: LiveStatus,
        submission: Submission,
        controller: Controller,
        watches: Watches,
        nodes: NodeCache,
    ) -> None:
        self._directory = directory
        self._jobs = jobs
        self._live = live
        self._submission = submission
        self._controller = controller
        self._watches = watches
        self._nodes = nodes

    async def CreateJob(self, request: jobs_pb.CreateJobRequest, context: Context) -> jobs_pb.CreateJobResponse:
        """Checks the spec, completes it and queues the job."""
        _check_size(request)
        if not request.validate_only and (known := self._jobs.find_by_request(request.request_id)):
            return jobs_pb.CreateJobResponse(job=await self._with_status(known))
        spec = await self._submission.validate_spec(request.spec)
        if request.validate_only:
            return jobs_pb.CreateJobResponse(job=await self._with_status(jobs_pb.Job(spec=spec)))
        job = await self._submission.submit_job(spec, request.request_id)
        self._controller.wake()
        return jobs_pb.CreateJobResponse(job=await self._with_status(job))

    async def GetJob(self, request: jobs_pb.GetJobRequest, context: Context) -> jobs_pb.GetJobResponse:
        """Returns a job with its newest progress and its recent events."""
        job = await self._with_status(self._jobs.get(request.job_id))
        return jobs_pb.GetJobResponse(job=job, recent_events=self._jobs.recent_events(request.job_id, _RECENT_EVENTS))

    async def ListJobs(self, request: jobs_pb.ListJobsRequest, context: Context) -> jobs_pb.ListJobsResponse:
        """Returns a page of jobs."""
        position, most = decode_number(request.page_token), page_size(request.page_size)
        bodies, rest = self._jobs.page(position, most, _require_states(request.states))
        response = jobs_pb.ListJobsResponse(next_page_token=encode_token(rest))
        for body in bodies:
            job = response.jobs.add()
            job.MergeFromString(body)
            self._live.add_live_status(job)
        return response

    async def WatchJob(self, request: jobs_pb.WatchJobRequest, context: Context) -> AsyncIterator[bytes]:  # type: ignore[override]
        """Yields events in order with progress in between, as serialised messages; see `SendBytes`."""
        async for response in self._watches.watch(request.job_id, request.from_event):
            yield response

    async def CancelJob(self, request: jobs_pb.CancelJobRequest, context: Context) -> jobs_pb.CancelJobResponse:
        """Cancels a job; the stop of its processes has begun when the answer comes."""
        return jobs_pb.CancelJobResponse(job=await self._controller.commands.cancel(request.job_id))

    async def PauseJob(self, request: jobs_pb.PauseJobRequest, context: Context) -> jobs_pb.PauseJobResponse:
        """Pauses a job; its checkpoint is written when the answer comes."""
        return jobs_pb.PauseJobResponse(job=await self._controller.commands.pause(request.job_id))

    async def ResumeJob(self, request: jobs_pb.ResumeJobRequest, context: Context) -> jobs_pb.ResumeJobResponse:
        """Queues a paused job."""
        return jobs_pb.ResumeJobResponse(job=await self._with_status(self._controller.commands.resume(request.job_id)))

    async def RetryJob(self, request: jobs_pb.RetryJobRequest, context: Context) -> jobs_pb.RetryJobResponse:
        """Queues a failed job."""
        job = self._controller.commands.retry(request.job_id)
        reason = job.reason  # kept, because the expectation of the attempt matters more here than why it waits
        answer = await self._with_status(job)
        answer.reason = reason
        return jobs_pb.RetryJobResponse(job=answer)

    async def ScaleJob(self, request: jobs_pb.ScaleJobRequest, context: Context) -> jobs_pb.ScaleJobResponse:
        """Changes the number of workers."""
        if not 1 <= request.workers <= _MOST_WORKERS:
            violation = Violation("workers", f"got {request.workers}; allowed: 1 to {_MOST_WORKERS}")
            raise ServiceError(Reason.INVALID_REQUEST, "that is no number of workers", violations=[violation])
        job = await self._controller.commands.scale(request.job_id, request.workers)
        return jobs_pb.ScaleJobResponse(job=await self._with_status(job))

    async def VerifyJob(self, request: jobs_pb.VerifyJobRequest, context: Context) -> jobs_pb.VerifyJobResponse:
        """Queues a job that repeats another one."""
        _check_request_id(request.request_id)
        if known := self._jobs.find_by_request(request.request_id):
            return jobs_pb.VerifyJobResponse(job=await self._with_status(known))
        job = await self._submission.submit_verification(request.job_id, request.request_id)
        self._controller.wake()
        return jobs_pb.VerifyJobResponse(job=await self._with_status(job))

    async def ListJobHistory(
        self, request: jobs_pb.ListJobHistoryRequest, context: Context
    ) -> jobs_pb.ListJobHistoryResponse:
        """Returns a page of a job's history."""
        kind = request.kind or jobs_pb.HISTORY_KIND_EPOCHS
        if kind not in jobs_pb.HistoryKind.values():
            violation = Violation("kind", f"got {kind}; {one_of(names(jobs_pb.HistoryKind.DESCRIPTOR))}")
            raise ServiceError(Reason.INVALID_REQUEST, "there is no such history", violations=[violation])
        after, most = decode_number(request.page_token), page_size(request.page_size)
        points, rest = self._jobs.history(request.job_id, kind, after, most)
        return jobs_pb.ListJobHistoryResponse(points=points, next_page_token=encode_token(rest))

    async def GetReceipt(self, request: jobs_pb.GetReceiptRequest, context: Context) -> jobs_pb.GetReceiptResponse:
        """Returns the receipt of a job: the digests to which its result can be traced."""
        job, receipt = self._jobs.get(request.job_id), self._jobs.receipt(request.job_id)
        if receipt is None or not receipt.final_weights_sha256:
            sentence = f"job {job.job_id} has no receipt: it gets one when it succeeds ({job.reason})"
            raise ServiceError(Reason.NOT_FOUND, sentence, job_id=job.job_id)
        return jobs_pb.GetReceiptResponse(receipt=receipt)

    async def ListCheckpoints(
        self, request: jobs_pb.ListCheckpointsRequest, context: Context
    ) -> jobs_pb.ListCheckpointsResponse:
        """Returns a job's checkpoints, each of which is read and checked."""
        self._jobs.get(request.job_id)
        folder = CheckpointFolder(self._directory.checkpoints(request.job_id))
        return jobs_pb.ListCheckpointsResponse(checkpoints=await run_to_its_end(folder.list))

    async def DeleteJob(self, request: jobs_pb.DeleteJobRequest, context: Context) -> jobs_pb.DeleteJobResponse:
        """Deletes a job that has ended, and removes its checkpoints."""
        self._controller.commands.delete(request.job_id)
        await run_to_its_end(CheckpointFolder(self._directory.checkpoints(request.job_id)).remove)
        return jobs_pb.DeleteJobResponse()

    async def _with_status(self, job: jobs_pb.Job) -> jobs_pb.Job:
        """Adds the newest progress, the reason of waiting and warnings to a job, and returns it."""
        # The size of the cluster matters only to jobs that wait.
        waits = job.state in (jobs_pb.JOB_STATE_UNSPECIFIED, QUEUED)
        nodes = await self._nodes.get_nodes() if waits else None
        self._live.add_live_status(job)
        job.warnings.extend(job_warnings(job, nodes))
        return job


def _check_size(request: jobs_pb.CreateJobRequest) -> None:
    if (came := request.spec.ByteSize()) > _MOST_SPEC_BYTES:
        raise ServiceError(
            Reason.TOO_LARGE,
            f"the job spec has {came:,} bytes, but the service takes at most {_MOST_SPEC_BYTES:,}: "
            "give a shorter one, with fewer nodes in cost.inner",
        )
    _check_request_id(request.request_id)


def _check_request_id(request_id: str) -> None:
    if (length := len(request_id)) > _LONGEST_REQUEST_ID:
        violation = Violation("request_id", f"got {length} characters; allowed: at most {_LONGEST_REQUEST_ID}")
        raise ServiceError(Reason.INVALID_REQUEST, "the request id is too long: give a UUID", violations=[violation])


def _require_states(states: Sequence[State]) -> frozenset[State]:
    """Returns the states without repetition; raises ServiceError if one does not exist."""
    unknown = frozenset(states) - TRANSITIONS.keys()
    if unknown:
        message = f"got {min(unknown)}; {one_of(names(jobs_pb.JobState.DESCRIPTOR))}"
        violation = Violation("states", message)
        raise ServiceError(Reason.INVALID_REQUEST, "there is no such state", violations=[violation])
    return frozenset(states)
