"""Orphaned jobs: active in the database, but without processes. They are queued again, or set aside."""

import logging
from typing import Final

from nablad.v1 import jobs_pb2 as jobs_pb
from service.control.transitions import RunningJobs, Transitions
from service.errors import DamagedError, ServiceError
from service.stores.job_states import ACTIVE, PAUSED, QUEUED
from service.stores.jobs import JobStore

__all__ = ["OrphanedJobs"]

_log = logging.getLogger(__name__)

# After so many crashes of the service in a row while a job was active, the job may be the cause, for example because it
# needs more memory than the service has. Then no other job would ever run. Power cuts count as well.
_MAX_LOST_WITH_SERVICE: Final = 3


class OrphanedJobs:
    """Queues orphaned jobs again, or pauses those during which the service crashed too often."""

    def __init__(self, jobs: JobStore, running: RunningJobs, transitions: Transitions) -> None:
        self._jobs = jobs
        self._running = running
        self._transitions = transitions
        self._inherited: set[str] = set()
        self._after_crash = False
        self._stuck: set[str] = set()  # ids of those that were logged

    def take_over_jobs(self, *, after_crash: bool) -> None:
        """Remembers the active jobs of the previous service; to be called once, before any job starts.

        Args:
            after_crash: Whether that service ended without a signal to stop.
        """
        self._inherited = {job.job_id for job in self._jobs.jobs_in_states(ACTIVE)}
        self._after_crash = after_crash

    def requeue_jobs(self) -> None:
        """Moves every orphaned job. One that cannot be read or moved is logged, and blocks no other job.

        Raises:
            sqlite3.Error: A move cannot be written. The next call finds the rest again.
        """
        for job in self._jobs.jobs_in_states(ACTIVE):
            if self._running.is_free(job.job_id):
                try:
                    self._move_orphan(job)
                except (DamagedError, ServiceError) as error:
                    self._log_stuck(job.job_id, error)

    def _move_orphan(self, job: jobs_pb.Job) -> None:
        """Moves a job that has no processes."""
        inherited = job.job_id in self._inherited
        # From now on this service is responsible for the job.
        self._inherited.discard(job.job_id)
        if self._transitions.write_unwritten(job.job_id):
            return
        if inherited:
            self._move_inherited(job)
        else:
            reason = "the service could not start or end its attempt, as its log says; another attempt follows"
            self._transitions.move(job.job_id, QUEUED, reason, lost_cause="service")

    def _log_stuck(self, job_id: str, error: Exception) -> None:
        """Logs once that a job cannot be moved."""
        if job_id not in self._stuck:
            self._stuck.add(job_id)
            _log.error("job %s has no processes, and cannot be moved: %s", job_id, error)

    def _move_inherited(self, job: jobs_pb.Job) -> None:
        """Moves a job whose processes ended with the previous service."""
        lost = job.lost_with_service + self._after_crash
        if lost >= _MAX_LOST_WITH_SERVICE:
            reason = _set_aside(job.job_id, lost)
            self._transitions.move(job.job_id, PAUSED, reason, lost_cause="service", lost_with_service=lost)
            return
        count = f" ({lost} times in a row while this job ran: after {_MAX_LOST_WITH_SERVICE} it is set aside)"
        reason = f"the service was restarted{count if lost > 1 else ''}; another attempt follows"
        self._transitions.move(job.job_id, QUEUED, reason, lost_cause="service", lost_with_service=lost)


def _set_aside(job_id: str, lost: int) -> str:
    return (
        f"set aside: the service ended {lost} times in a row while this job ran, so this job, or one beside it, may be "
        "the cause, by needing more memory than the service has; look for it in the log of the service and of the "
        f"system; `nabla job resume {job_id}` lets the job go on from its newest checkpoint"
    )
