"""The table of states and moves."""

from nablad.v1 import jobs_pb2 as jobs_pb
from service.job_states import ENDED, LAUNCHED, MOVES, QUEUED, state_name


def test_every_state_of_the_contract_is_in_the_table() -> None:
    """No state of the proto is forgotten, and no other is invented."""
    assert set(MOVES) == {number for number in jobs_pb.JobState.values() if number}


def test_every_state_leads_to_an_end() -> None:
    """Each state that is not final can fail and be cancelled at once, and all states can be reached."""
    for state in MOVES.keys() - ENDED:
        assert {jobs_pb.JOB_STATE_FAILED, jobs_pb.JOB_STATE_CANCELLED} <= MOVES[state]
    reached = {QUEUED}
    for _ in MOVES:
        reached |= {target for state in reached for target in MOVES[state]}
    assert reached == set(MOVES)


def test_final_states_are_final() -> None:
    """Exactly SUCCEEDED, FAILED and CANCELLED end a job."""
    assert {state_name(state) for state in ENDED} == {"succeeded", "failed", "cancelled"}


def test_what_has_processes_can_be_queued_again() -> None:
    """STARTING and RUNNING may go back to the queue, others may not."""
    assert {state_name(state) for state in LAUNCHED} == {"starting", "running"}
