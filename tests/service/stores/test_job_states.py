"""The table of states and transitions."""

from nablad.v1 import jobs_pb2 as jobs_pb
from service.stores.job_states import (
    ACTIVE,
    CANCELLED,
    ENDED,
    FAILED,
    PAUSED,
    QUEUED,
    SUCCEEDED,
    TRANSITIONS,
    state_name,
)


def test_every_state_of_the_contract_is_in_the_table() -> None:
    """No state of the proto is forgotten, and no other is invented."""
    assert set(TRANSITIONS) == {number for number in jobs_pb.JobState.values() if number}


def test_every_state_leads_to_an_end() -> None:
    """Each job that has not ended can be cancelled at once, and all states can be reached."""
    for state in TRANSITIONS.keys() - ENDED:
        assert CANCELLED in TRANSITIONS[state]
    reached = {QUEUED}
    for _ in TRANSITIONS:
        reached |= {target for state in reached for target in TRANSITIONS[state]}
    assert reached == set(TRANSITIONS)


def test_what_ended_stays_ended() -> None:
    """But for a failed job, which may be queued again; nothing that has ended has processes."""
    assert {state_name(state) for state in ENDED} == {"succeeded", "failed", "cancelled"}
    assert not TRANSITIONS[SUCCEEDED] | TRANSITIONS[CANCELLED]
    assert TRANSITIONS[FAILED] == {QUEUED}
    assert not ENDED & ACTIVE


def test_what_has_processes_can_lose_them_and_go_on() -> None:
    """STARTING and RUNNING may go back to the queue or be paused; and a paused job is queued before it runs."""
    assert {state_name(state) for state in ACTIVE} == {"starting", "running"}
    for state in ACTIVE:
        assert {QUEUED, PAUSED} <= TRANSITIONS[state]
    assert not TRANSITIONS[PAUSED] & ACTIVE
