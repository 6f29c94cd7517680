"""The states of a job and the moves between them: the one place that says what is legal."""

from collections.abc import Mapping
from typing import TypeAlias

from nablad.jobspec import name_of
from nablad.v1 import jobs_pb2 as jobs_pb

__all__ = ["ENDED", "LAUNCHED", "MOVES", "state_name", "stops_work"]

State: TypeAlias = jobs_pb.JobState.ValueType

QUEUED = jobs_pb.JOB_STATE_QUEUED
STARTING = jobs_pb.JOB_STATE_STARTING
RUNNING = jobs_pb.JOB_STATE_RUNNING
PAUSED = jobs_pb.JOB_STATE_PAUSED
SUCCEEDED = jobs_pb.JOB_STATE_SUCCEEDED
FAILED = jobs_pb.JOB_STATE_FAILED
CANCELLED = jobs_pb.JOB_STATE_CANCELLED

# Back to QUEUED leads the loss of a fleet or of the service, with another attempt to follow; the end of a pause; and
# for a failed job, a client's wish to try it again.
MOVES: Mapping[State, frozenset[State]] = {
    QUEUED: frozenset({STARTING, PAUSED, FAILED, CANCELLED}),
    STARTING: frozenset({RUNNING, QUEUED, PAUSED, FAILED, CANCELLED}),
    RUNNING: frozenset({SUCCEEDED, QUEUED, PAUSED, FAILED, CANCELLED}),
    PAUSED: frozenset({QUEUED, CANCELLED}),
    SUCCEEDED: frozenset(),
    FAILED: frozenset({QUEUED}),
    CANCELLED: frozenset(),
}

# Nothing happens to a job in these by itself. Nothing leads out of them but the wish to try a failed one again.
ENDED = frozenset({SUCCEEDED, FAILED, CANCELLED})
# States in which a job may have processes.
LAUNCHED = frozenset({STARTING, RUNNING})


def stops_work(before: State, after: State) -> bool:
    """Returns whether a move takes a job off its processes or out of the queue, rather than on its way."""
    return after in ENDED or after == PAUSED or (after == QUEUED and before in LAUNCHED)


def state_name(state: State) -> str:
    """The name of a state as messages and metrics write it, such as ``queued``."""
    return name_of(jobs_pb.JobState.DESCRIPTOR, state)
