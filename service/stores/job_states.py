"""States of a job, and the table of transitions between them."""

from collections.abc import Mapping
from typing import TypeAlias

from nablad.jobspec import name_of
from nablad.v1 import jobs_pb2 as jobs_pb

__all__ = ["ACTIVE", "ENDED", "TRANSITIONS", "state_name", "stops_work"]

State: TypeAlias = jobs_pb.JobState.ValueType

QUEUED = jobs_pb.JOB_STATE_QUEUED
STARTING = jobs_pb.JOB_STATE_STARTING
RUNNING = jobs_pb.JOB_STATE_RUNNING
PAUSED = jobs_pb.JOB_STATE_PAUSED
SUCCEEDED = jobs_pb.JOB_STATE_SUCCEEDED
FAILED = jobs_pb.JOB_STATE_FAILED
CANCELLED = jobs_pb.JOB_STATE_CANCELLED

# A job goes back to QUEUED when its processes or the service are lost and another attempt follows, when it is resumed,
# and when a client retries a failed job.
TRANSITIONS: Mapping[State, frozenset[State]] = {
    QUEUED: frozenset({STARTING, PAUSED, FAILED, CANCELLED}),
    STARTING: frozenset({RUNNING, QUEUED, PAUSED, FAILED, CANCELLED}),
    RUNNING: frozenset({SUCCEEDED, QUEUED, PAUSED, FAILED, CANCELLED}),
    PAUSED: frozenset({QUEUED, CANCELLED}),
    SUCCEEDED: frozenset(),
    FAILED: frozenset({QUEUED}),
    CANCELLED: frozenset(),
}

# Final states, except that a client may retry a failed job.
ENDED = frozenset({SUCCEEDED, FAILED, CANCELLED})
# States in which a job may have processes.
ACTIVE = frozenset({STARTING, RUNNING})


def stops_work(before: State, after: State) -> bool:
    """Returns whether a move takes a job off its processes or out of the queue, rather than on its way."""
    return after in ENDED or after == PAUSED or (after == QUEUED and before in ACTIVE)


def state_name(state: State) -> str:
    """Returns the name of a state as messages and metrics write it, such as ``queued``."""
    return name_of(jobs_pb.JobState.DESCRIPTOR, state)
