"""The store of jobs: legal moves only, events without gaps, one job per request."""

from collections.abc import Sequence

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from service.errors import Reason, ServiceError
from service.stores.job_states import (
    CANCELLED,
    ENDED,
    FAILED,
    PAUSED,
    QUEUED,
    RUNNING,
    STARTING,
    SUCCEEDED,
    TRANSITIONS,
    State,
)
from service.stores.jobs import JobStore

SPEC = spec_pb.JobSpec(name="a")

PATHS = {
    QUEUED: (),
    STARTING: (STARTING,),
    RUNNING: (STARTING, RUNNING),
    SUCCEEDED: (STARTING, RUNNING, SUCCEEDED),
    PAUSED: (PAUSED,),
    FAILED: (FAILED,),
    CANCELLED: (CANCELLED,),
}


def _job_in(jobs: JobStore, state: State) -> str:
    job_id = jobs.create(SPEC, "").job_id
    for step in PATHS[state]:
        jobs.move(job_id, step, "test")
    return job_id


@pytest.mark.parametrize("state", TRANSITIONS)
@pytest.mark.parametrize("target", TRANSITIONS)
def test_exactly_the_legal_moves_are_made(jobs: JobStore, state: State, target: State) -> None:
    """Every pair of states: a move of the table is made, any other is refused and changes nothing."""
    job_id = _job_in(jobs, state)
    before = jobs.get(job_id)
    if target in TRANSITIONS[state]:
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
    jobs.append_event(job_id, "worker-1 joined", worker_joined=True)
    jobs.append_history(job_id, [(jobs_pb.Progress(epoch=1), jobs_pb.HistoryPoint(epoch=1), "epoch 1")], [])
    jobs.append_event(job_id, "checkpoint", checkpoint=7)
    jobs.set_workers(job_id, 3, "3 workers")
    jobs.move(job_id, SUCCEEDED, "done", model_id="m")
    events = jobs.events(job_id, 1)
    assert [event.number for event in events] == list(range(1, 9))
    whats = ["worker_joined", "epoch_end", "checkpoint", "notice", "state"]
    assert [event.WhichOneof("what") for event in events[3:]] == whats
    assert jobs.last_event(job_id) == 8
    assert list(jobs.events(job_id, 5)) == list(events[4:])
    assert jobs.events(job_id, 9) == []


def test_recent_events_are_those_of_note(jobs: JobStore) -> None:
    """The last ones that are neither ends of epochs nor checkpoints, in order."""
    job_id = _job_in(jobs, RUNNING)
    for number in range(5):
        jobs.append_event(job_id, f"notice {number}", notice=True)
        jobs.append_event(job_id, "checkpoint", checkpoint=number)
        jobs.append_history(job_id, [(jobs_pb.Progress(epoch=number), jobs_pb.HistoryPoint(step=number), "epoch")], [])
    assert [event.message for event in jobs.recent_events(job_id, 2)] == ["notice 3", "notice 4"]
    assert len(jobs.recent_events(job_id, 100)) == 8
    assert jobs.recent_events("nobody", 2) == []
    assert jobs.last_event("nobody") == 0


def test_a_move_takes_changes_along(jobs: JobStore) -> None:
    """Any field, in the same transaction; None clears one, and what is not named stays."""
    job_id = _job_in(jobs, RUNNING)
    job = jobs.move(
        job_id, QUEUED, "lost", lost_attempts=2, last_error_lines="boom", retry_time=Timestamp(seconds=9, nanos=5)
    )
    assert (job.lost_attempts, job.last_error_lines, job.retry_time.seconds) == (2, "boom", 9)
    assert jobs.get(job_id) == job
    job = jobs.move(job_id, PAUSED, "paused", last_error_lines=None)
    assert (job.lost_attempts, job.last_error_lines) == (2, "")
    assert not job.HasField("retry_time")


def test_a_failed_job_that_is_tried_again_begins_afresh(jobs: JobStore) -> None:
    """Its end, its losses and its error are forgotten; its attempts go on counting."""
    job_id = _job_in(jobs, RUNNING)
    jobs.move(job_id, FAILED, "no", lost_attempts=3, last_error_lines="boom")
    job = jobs.move(job_id, QUEUED, "again")
    assert not job.HasField("end_time")
    assert (job.lost_attempts, job.last_error_lines, job.attempt) == (0, "", 1)


def test_progress_is_kept_between_attempts(jobs: JobStore) -> None:
    """The next one goes on from a checkpoint."""
    job_id = _job_in(jobs, RUNNING)
    jobs.append_history(job_id, [(jobs_pb.Progress(epoch=4), jobs_pb.HistoryPoint(), "epoch 4")], [])
    for state in (QUEUED, STARTING, RUNNING):
        assert jobs.move(job_id, state, "test").progress.epoch == 4


def test_headway_forgets_losses(jobs: JobStore) -> None:
    """Attempts that were lost before do not count any more."""
    job_id = _job_in(jobs, RUNNING)
    jobs.reset_lost_attempts(job_id)
    jobs.move(job_id, QUEUED, "lost", lost_attempts=2)
    jobs.reset_lost_attempts(job_id)
    assert jobs.get(job_id).lost_attempts == 0


@pytest.mark.parametrize("state", TRANSITIONS)
def test_only_jobs_that_have_not_ended_are_scaled(jobs: JobStore, state: State) -> None:
    """The spec has the new number of workers, or the call is refused."""
    job_id = _job_in(jobs, state)
    if state in ENDED:
        with pytest.raises(ServiceError, match="no workers any more"):
            jobs.set_workers(job_id, 3, "3 workers")
    else:
        assert jobs.set_workers(job_id, 3, "3 workers") == jobs.get(job_id)
        assert jobs.get(job_id).spec.distribution.workers == 3
        assert jobs.recent_events(job_id, 1)[0].notice


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
    assert len(jobs.jobs_in_states([QUEUED])) == 3


def test_a_job_may_have_its_id_before_it_is_made(jobs: JobStore) -> None:
    """And may say which job it verifies."""
    job_id = jobs.new_job_id(SPEC)
    assert not jobs.has(job_id)
    assert jobs.create(SPEC, "", job_id=job_id, verifies="b") == jobs.get(job_id)
    assert jobs.get(job_id).verifies == "b"
    assert jobs.has(job_id)
    assert jobs.ids() == [job_id]


def test_a_job_keeps_its_times(jobs: JobStore) -> None:
    """Start is when it first ran, end is when it ended; each attempt counts once."""
    job_id = _job_in(jobs, RUNNING)
    assert jobs.get(job_id).HasField("start_time")
    assert not jobs.get(job_id).HasField("end_time")
    jobs.move(job_id, QUEUED, "lost")
    jobs.move(job_id, STARTING, "again")
    assert jobs.get(job_id).attempt == 2
    jobs.move(job_id, FAILED, "no")
    assert jobs.get(job_id).HasField("end_time")


def test_pages_hold_every_job_once(jobs: JobStore) -> None:
    """Newest first, whatever the size of the pages; filters hold on every page."""
    made = [jobs.create(SPEC, "").job_id for _ in range(7)]
    cancelled = made[::2]
    for job_id in cancelled:
        jobs.move(job_id, CANCELLED, "test")
    for size in (1, 2, 7, 8):
        for states, expected in (((), made), ((CANCELLED,), cancelled)):
            seen: list[str] = []
            before: int | None = None
            while True:
                page, before = _page(jobs, before, size, states)
                seen += [job.job_id for job in page]
                if before is None:
                    break
            assert seen == expected[::-1]


def _page(
    jobs: JobStore, before: int | None, limit: int, states: Sequence[State]
) -> tuple[list[jobs_pb.Job], int | None]:
    bodies, rest = jobs.page(before, limit, states)
    return [jobs_pb.Job.FromString(body) for body in bodies], rest


def test_pages_fit_into_a_message(jobs: JobStore) -> None:
    """A page of large specs holds fewer jobs than asked for, and the next one goes on after it."""
    node_lists = [spec_pb.InnerTerm(nodes=range(200_000))]
    large = spec_pb.JobSpec(name="large", cost=spec_pb.CostSpec(inner=node_lists))
    made = [jobs.create(large, "").job_id for _ in range(8)]
    seen: list[str] = []
    before: int | None = None
    while True:
        page, before = _page(jobs, before, 1000, ())
        assert sum(job.ByteSize() for job in page) < 3 << 20
        seen += [job.job_id for job in page]
        if before is None:
            break
    assert seen == made[::-1]


def test_counts_tell_every_state(jobs: JobStore) -> None:
    """States without jobs count 0."""
    _job_in(jobs, RUNNING)
    assert jobs.count_by_state() == dict.fromkeys(TRANSITIONS, 0) | {RUNNING: 1}


@pytest.mark.parametrize("state", TRANSITIONS)
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
