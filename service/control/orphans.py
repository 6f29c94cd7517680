"""Jobs that are on their processes in the database, and have none: what becomes of them."""

import logging
from typing import Final

from nablad.v1 import jobs_pb2 as jobs_pb
from service.control.transitions import RunningJobs, Transitions
from service.errors import DamagedError, ServiceError
from service.stores.job_states import LAUNCHED, PAUSED, QUEUED
from service.stores.jobs import JobStore

__all__ = ["Orphans"]

_log = logging.getLogger(__name__)

# The service ended so often in a row while a job was on its processes, and nobody had told it to: the job may be the
# cause, by needing more memory than the service has, and nobody else's job would ever run. Power cuts count as well.
_MOST_LOST_WITH_SERVICE: Final = 3


class Orphans:
    """Queues them again, or sets them aside."""

    def __init__(self, jobs: JobStore, running: RunningJobs, transitions: Transitions) -> None:
        self._jobs = jobs
        self._running = running
        self._transitions = transitions
        self._inherited: set[str] = set()
        self._after_crash = False
        self._stuck: set[str] = set()  # said to be

    def inherit(self, *, after_crash: bool) -> None:
        """Takes over what the service before left; to be called once, before anything is launched.

        Args:
            after_crash: Whether nobody had told that service to end.
        """
        self._inherited = {job.job_id for job in self._jobs.in_states(LAUNCHED)}
        self._after_crash = after_crash

    def requeue(self) -> None:
        """Looks for them; one that cannot be read or moved is in nobody else's way.

        Raises:
            sqlite3.Error: It cannot be written down; those that are left are found again.
        """
        for job in self._jobs.in_states(LAUNCHED):
            if self._running.is_free(job.job_id):
                try:
                    self._see_to(job)
                except (DamagedError, ServiceError) as error:
                    self._complain(job.job_id, error)

    def _see_to(self, job: jobs_pb.Job) -> None:
        """Moves a job that has no processes."""
        inherited = job.job_id in self._inherited
        # What comes of it from now on is this service's doing.
        self._inherited.discard(job.job_id)
        if self._transitions.write_unwritten(job.job_id):
            return
        if inherited:
            self._take_over(job)
        else:
            reason = "the service could not start or end its attempt, as its log says; another attempt follows"
            self._transitions.move(job.job_id, QUEUED, reason, lost_cause="service")

    def _complain(self, job_id: str, error: Exception) -> None:
        """Says once that a job cannot be moved."""
        if job_id not in self._stuck:
            self._stuck.add(job_id)
            _log.error("job %s has no processes, and cannot be moved: %s", job_id, error)

    def _take_over(self, job: jobs_pb.Job) -> None:
        """Moves a job whose processes ended with the service before."""
        lost = job.lost_with_service + self._after_crash
        if lost >= _MOST_LOST_WITH_SERVICE:
            reason = _set_aside(job.job_id, lost)
            self._transitions.move(job.job_id, PAUSED, reason, lost_cause="service", lost_with_service=lost)
            return
        count = f" ({lost} times in a row while this job ran: after {_MOST_LOST_WITH_SERVICE} it is set aside)"
        reason = f"the service was restarted{count if lost > 1 else ''}; another attempt follows"
        self._transitions.move(job.job_id, QUEUED, reason, lost_cause="service", lost_with_service=lost)


def _set_aside(job_id: str, lost: int) -> str:
    return (
        f"set aside: the service ended {lost} times in a row while this job ran, so this job, or one beside it, may be "
        "the cause, by needing more memory than the service has; look for it in the log of the service and of the "
        f"system; `nabla job resume {job_id}` lets the job go on from its newest checkpoint"
    )
