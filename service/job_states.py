"""The states of a job and the moves between them: the one place that says what is legal."""

from collections.abc import Mapping
from typing import TypeAlias

from nablad.spec import name_of
from nablad.v1 import jobs_pb2 as jobs_pb

__all__ = ["ENDED", "LAUNCHED", "MOVES", "state_name"]

State: TypeAlias = jobs_pb.JobState.ValueType

QUEUED = jobs_pb.JOB_STATE_QUEUED
STARTING = jobs_pb.JOB_STATE_STARTING
RUNNING = jobs_pb.JOB_STATE_RUNNING
SUCCEEDED = jobs_pb.JOB_STATE_SUCCEEDED
FAILED = jobs_pb.JOB_STATE_FAILED
CANCELLED = jobs_pb.JOB_STATE_CANCELLED

# Back to QUEUED leads the loss of a fleet or of the service: a new attempt follows.
MOVES: Mapping[State, frozenset[State]] = {
    QUEUED: frozenset({STARTING, FAILED, CANCELLED}),
    STARTING: frozenset({RUNNING, QUEUED, FAILED, CANCELLED}),
    RUNNING: frozenset({SUCCEEDED, QUEUED, FAILED, CANCELLED}),
    SUCCEEDED: frozenset(),
    FAILED: frozenset(),
    CANCELLED: frozenset(),
}

# Final states: nothing leads out of them.
ENDED = frozenset(state for state, targets in MOVES.items() if not targets)
# States in which a job may have processes.
LAUNCHED = frozenset(state for state, targets in MOVES.items() if QUEUED in targets)


def state_name(state: State) -> str:
    """The name of a state as messages and metrics write it, such as ``queued``."""
    return name_of(jobs_pb.JobState.DESCRIPTOR, state)
