"""The store of jobs: legal moves only, events without gaps, one job per request."""

import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from service.errors import Reason, ServiceError
from service.job_states import ENDED, MOVES, QUEUED, RUNNING, STARTING, SUCCEEDED, State
from service.stores.jobs import JobStore

SPEC = spec_pb.JobSpec(name="a")

PATHS = {
    QUEUED: (),
    STARTING: (STARTING,),
    RUNNING: (STARTING, RUNNING),
    SUCCEEDED: (STARTING, RUNNING, SUCCEEDED),
    jobs_pb.JOB_STATE_FAILED: (jobs_pb.JOB_STATE_FAILED,),
    jobs_pb.JOB_STATE_CANCELLED: (jobs_pb.JOB_STATE_CANCELLED,),
}


def _job_in(jobs: JobStore, state: State) -> str:
    job_id = jobs.create(SPEC, "").job_id
    for step in PATHS[state]:
        jobs.move(job_id, step, "test")
    return job_id


@pytest.mark.parametrize("state", MOVES)
@pytest.mark.parametrize("target", MOVES)
def test_exactly_the_legal_moves_are_made(jobs: JobStore, state: State, target: State) -> None:
    """Every pair of states: a move of the table is made, any other is refused and changes nothing."""
    job_id = _job_in(jobs, state)
    before = jobs.get(job_id)
    if target in MOVES[state]:
        jobs.move(job_id, target, "because")
        assert (jobs.get(job_id).state, jobs.get(job_id).reason) == (target, "because")
    else:
        with pytest.raises(ServiceError) as refused:
            jobs.move(job_id, target, "because")
        assert refused.value.reason == Reason.WRONG_STATE
        assert jobs.get(job_id) == before


def test_events_have_no_gaps(jobs: JobStore) -> None:
    """Numbers count from 1 without gaps, whatever happens, and can be read from any of them."""
    job_id = _job_in(jobs, RUNNING)
    jobs.worker_event(job_id, "worker-1 joined", joined=True)
    jobs.end_epochs(job_id, [(jobs_pb.Progress(epoch=1), "epoch 1")])
    jobs.move(job_id, SUCCEEDED, "done", model_id="m")
    events = jobs.events(job_id, 1)
    assert [event.number for event in events] == [1, 2, 3, 4, 5, 6]
    assert [event.WhichOneof("what") for event in events[3:]] == ["worker_joined", "epoch_end", "state"]
    assert list(jobs.events(job_id, 5)) == list(events[4:])
    assert jobs.events(job_id, 7) == []


def test_a_refused_move_leaves_no_event(jobs: JobStore) -> None:
    """The event and the move are one transaction."""
    job_id = _job_in(jobs, SUCCEEDED)
    count = len(jobs.events(job_id, 1))
    with pytest.raises(ServiceError):
        jobs.move(job_id, QUEUED, "no")
    assert len(jobs.events(job_id, 1)) == count


def test_the_same_request_gives_the_same_job(jobs: JobStore) -> None:
    """A repeated call does not queue twice; calls without a request id do."""
    first = jobs.create(SPEC, "r")
    assert jobs.create(SPEC, "r") == first
    assert jobs.create(SPEC, "").job_id != jobs.create(SPEC, "").job_id
    assert len(jobs.in_states([QUEUED])) == 3


def test_a_job_keeps_its_times(jobs: JobStore) -> None:
    """Start is when it first ran, end is when it ended; each attempt counts once."""
    job_id = _job_in(jobs, RUNNING)
    assert jobs.get(job_id).HasField("start_time")
    assert not jobs.get(job_id).HasField("end_time")
    jobs.move(job_id, QUEUED, "lost")
    jobs.move(job_id, STARTING, "again")
    assert jobs.get(job_id).attempt == 2
    jobs.move(job_id, jobs_pb.JOB_STATE_FAILED, "no")
    assert jobs.get(job_id).HasField("end_time")


def test_pages_hold_every_job_once(jobs: JobStore) -> None:
    """Newest first, whatever the size of the pages; filters hold on every page."""
    made = [jobs.create(SPEC, "").job_id for _ in range(7)]
    cancelled = made[::2]
    for job_id in cancelled:
        jobs.move(job_id, jobs_pb.JOB_STATE_CANCELLED, "test")
    for size in (1, 2, 7, 8):
        for states, expected in (((), made), ((jobs_pb.JOB_STATE_CANCELLED,), cancelled)):
            seen: list[str] = []
            before: int | None = None
            while True:
                page, before = jobs.page(before, size, states)
                seen += [job.job_id for job in page]
                if before is None:
                    break
            assert seen == expected[::-1]


def test_pages_fit_into_a_message(jobs: JobStore) -> None:
    """A page of large specs holds fewer jobs than asked for, and the next one goes on after it."""
    node_lists = [spec_pb.InnerTerm(nodes=range(200_000))]
    large = spec_pb.JobSpec(name="large", cost=spec_pb.CostSpec(inner=node_lists))
    made = [jobs.create(large, "").job_id for _ in range(8)]
    seen: list[str] = []
    before: int | None = None
    while True:
        page, before = jobs.page(before, 1000, ())
        assert sum(job.ByteSize() for job in page) < 3 << 20
        seen += [job.job_id for job in page]
        if before is None:
            break
    assert seen == made[::-1]


def test_counts_tell_every_state(jobs: JobStore) -> None:
    """States without jobs count 0."""
    _job_in(jobs, RUNNING)
    assert jobs.counts() == dict.fromkeys(MOVES, 0) | {RUNNING: 1}


@pytest.mark.parametrize("state", MOVES)
def test_only_ended_jobs_are_deleted(jobs: JobStore, state: State) -> None:
    """A job that has not ended stays; one that has goes with its events."""
    job_id = _job_in(jobs, state)
    if state in ENDED:
        jobs.delete(job_id)
        assert jobs.events(job_id, 1) == []
        with pytest.raises(ServiceError) as missing:
            jobs.get(job_id)
        assert missing.value.reason == Reason.NOT_FOUND
    else:
        with pytest.raises(ServiceError, match="nabla job cancel"):
            jobs.delete(job_id)
