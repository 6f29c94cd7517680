"""Calls about jobs."""

from collections.abc import Callable, Iterable, Iterator
from uuid import uuid4

from nablad.client.connection import Connection
from nablad.client.watching import JobUpdate, Patience, watch
from nablad.errors import UnavailableError
from nablad.v1 import job_spec_pb2, jobs_pb2

_HISTORY_PAGE_SIZE = 1000
# A pause waits for a checkpoint, and a list of checkpoints until all of them have been read.
_CHECKPOINT_CALL_S = 120.0


def _ignore(_: UnavailableError) -> None:
    """Reports nothing."""


class JobCalls(Connection):
    """Submit, get, list, watch, control and delete jobs."""

    def submit(
        self, spec: job_spec_pb2.JobSpec, *, request_id: str | None = None, validate_only: bool = False
    ) -> jobs_pb2.Job:
        """Queues a job.

        Args:
            spec: Spec of the job.
            request_id: Id of the request: the same id returns the same job, so that a call may be repeated. None: a
                new UUID.
            validate_only: Check the spec and queue nothing; the answer holds only the completed spec and warnings.

        Returns:
            The job, with ``warnings`` if it is accepted but probably not as intended.

        Raises:
            InvalidRequestError: The spec breaks rules; carries all violations.
        """
        request = jobs_pb2.CreateJobRequest(
            spec=spec, request_id=request_id or str(uuid4()), validate_only=validate_only
        )
        return self._call(self._jobs.CreateJob, request).job

    def job(self, job_id: str) -> jobs_pb2.Job:
        """Returns the job with this id."""
        return self._call(self._jobs.GetJob, jobs_pb2.GetJobRequest(job_id=job_id)).job

    def job_with_events(self, job_id: str) -> tuple[jobs_pb2.Job, list[jobs_pb2.Event]]:
        """Returns the job with this id and its recent events, the oldest first.

        Ends of epochs and checkpoints are not among them; see ``history``, ``checkpoints`` and ``watch``.
        """
        answer = self._call(self._jobs.GetJob, jobs_pb2.GetJobRequest(job_id=job_id))
        return answer.job, list(answer.recent_events)

    def jobs(self, states: Iterable[jobs_pb2.JobState.ValueType] = ()) -> Iterator[jobs_pb2.Job]:
        """Yields the jobs in one of ``states``, or in any if none is given; the newest first."""
        for page in self._pages(self._jobs.ListJobs, jobs_pb2.ListJobsRequest(states=states)):
            yield from page.jobs

    def watch(
        self, job_id: str, from_event: int = 1, *, on_lost: Callable[[UnavailableError], None] = _ignore
    ) -> Iterator[JobUpdate]:
        """Streams a job's events from a number on, each once and in order, until it has ended.

        Samples of its progress come in between, and while it is queued the reason why it waits (``Waiting``). After a
        lost connection, the watch reconnects and goes on where it was.

        Args:
            job_id: Id of the job.
            from_event: Number of the first event.
            on_lost: Called when the connection is lost, and again after each failed attempt to reconnect.
        """
        request = jobs_pb2.WatchJobRequest(job_id=job_id, from_event=from_event)
        return watch(self._watches.WatchJob, request, self.address, Patience(self._patience_s), on_lost)

    def pause(self, job_id: str) -> jobs_pb2.Job:
        """Stops a job's processes after a checkpoint, until it is resumed."""
        request = jobs_pb2.PauseJobRequest(job_id=job_id)
        return self._call(self._jobs.PauseJob, request, at_least_s=_CHECKPOINT_CALL_S).job

    def resume(self, job_id: str) -> jobs_pb2.Job:
        """Queues a paused job again; it goes on exactly where it was."""
        return self._call(self._jobs.ResumeJob, jobs_pb2.ResumeJobRequest(job_id=job_id)).job

    def retry(self, job_id: str) -> jobs_pb2.Job:
        """Queues a failed job again; it goes on from its newest checkpoint."""
        return self._call(self._jobs.RetryJob, jobs_pb2.RetryJobRequest(job_id=job_id)).job

    def scale(self, job_id: str, workers: int) -> jobs_pb2.Job:
        """Changes the number of workers of a job that has not ended; its result stays the same."""
        return self._call(self._jobs.ScaleJob, jobs_pb2.ScaleJobRequest(job_id=job_id, workers=workers)).job

    def cancel(self, job_id: str) -> jobs_pb2.Job:
        """Cancels a job that has not ended."""
        return self._call(self._jobs.CancelJob, jobs_pb2.CancelJobRequest(job_id=job_id)).job

    def delete_job(self, job_id: str) -> None:
        """Deletes a job that has ended, with its events, history and checkpoints; its model stays."""
        self._call(self._jobs.DeleteJob, jobs_pb2.DeleteJobRequest(job_id=job_id))

    # Records of jobs

    def history(self, job_id: str, *, steps: bool = False) -> Iterator[jobs_pb2.HistoryPoint]:
        """Yields the metrics of a job's epochs, in order.

        Args:
            job_id: Id of the job.
            steps: Yield those of at most 1000 steps instead, evenly spread over the job.
        """
        kind = jobs_pb2.HISTORY_KIND_STEPS if steps else jobs_pb2.HISTORY_KIND_EPOCHS
        request = jobs_pb2.ListJobHistoryRequest(job_id=job_id, kind=kind, page_size=_HISTORY_PAGE_SIZE)
        for page in self._pages(self._jobs.ListJobHistory, request):
            yield from page.points

    def checkpoints(self, job_id: str) -> list[jobs_pb2.Checkpoint]:
        """Returns the checkpoints of a job, the newest first, each compared with its digest."""
        request = jobs_pb2.ListCheckpointsRequest(job_id=job_id)
        return list(self._call(self._jobs.ListCheckpoints, request, at_least_s=_CHECKPOINT_CALL_S).checkpoints)

    def receipt(self, job_id: str) -> jobs_pb2.Receipt:
        """Returns the receipt of a job that has succeeded: what its result can be traced to."""
        return self._call(self._jobs.GetReceipt, jobs_pb2.GetReceiptRequest(job_id=job_id)).receipt

    def verify(self, job_id: str, *, request_id: str | None = None) -> jobs_pb2.Job:
        """Queues a job that runs another one again and compares the weights after each epoch.

        Args:
            job_id: Id of the job to run again, which has succeeded.
            request_id: As for ``submit``.

        Returns:
            The new job. It succeeds if no weights differ; else its reason names the first epoch that does.
        """
        request = jobs_pb2.VerifyJobRequest(job_id=job_id, request_id=request_id or str(uuid4()))
        return self._call(self._jobs.VerifyJob, request).job
