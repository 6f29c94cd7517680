"""Live status: what is known of jobs beyond the database."""

import asyncio

import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.events.job_events import (
    AttemptResumed,
    CheckpointFailed,
    CheckpointWritten,
    EndUnwritten,
    JobDeleted,
    JobEvent,
    Notice,
    ProgressReported,
    StateChanged,
    WaitingExplained,
    WorkersChanged,
)
from service.events.live_status import LiveStatus
from service.stores.job_states import ENDED, PAUSED, QUEUED, RUNNING, STARTING, SUCCEEDED, State


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def live(clock: Clock) -> LiveStatus:
    return LiveStatus(clock)


def _update(live: LiveStatus, job_id: str, step: int = 1) -> None:
    progress = jobs_pb.Progress(step=step, workers_alive=2, samples_per_second=9)
    process = ps_pb.ProcessStatistics(cpu_seconds=1)
    statistics = ps_pb.AttemptStatistics(workers_lost=1, transport_workers={"shared": 2}, process=process)
    live.receive(ProgressReported(job_id, progress, statistics))


def _moved(state: State, **fields: object) -> StateChanged:
    return StateChanged("a", jobs_pb.Job(job_id="a", state=state, **fields), jobs_pb.Job())


def _explain(live: LiveStatus, reason: str) -> None:
    live.receive(WaitingExplained("a", reason))


def _queued(reason: str = "waits for its turn") -> jobs_pb.Job:
    return jobs_pb.Job(job_id="a", state=jobs_pb.JOB_STATE_QUEUED, reason=reason)


def test_the_newest_figures_are_known(live: LiveStatus) -> None:
    """New figures replace those before; of a job that was never told about, nothing is known."""
    _update(live, "a", 1)
    _update(live, "a", 2)
    assert live.progress("a").step == 2
    assert live.progress("b") is None
    assert list(live.snapshot()) == ["a"]


def test_statistics_stay_until_newer_ones_come(live: LiveStatus) -> None:
    """It is not asked for with every progress."""
    _update(live, "a", 1)
    live.receive(ProgressReported("a", jobs_pb.Progress(step=2)))
    known = live.snapshot()["a"]
    assert (known.progress.step, known.statistics.workers_lost) == (2, 1)


def test_states_end_with_the_job_and_totals_stay_for_a_while(live: LiveStatus, clock: Clock) -> None:
    """At the end workers and speed go to zero, totals stay as they are, and later everything goes."""
    _update(live, "a")
    live.receive(_moved(SUCCEEDED))
    ended = live.snapshot()["a"]
    assert (ended.progress.workers_alive, ended.progress.samples_per_second) == (0, 0)
    assert (dict(ended.statistics.transport_workers), ended.statistics.workers_lost) == ({}, 1)
    assert not ended.statistics.HasField("process")
    clock.seconds = 899
    assert "a" in live.snapshot()
    clock.seconds = 901
    assert "a" not in live.snapshot()


@pytest.mark.parametrize("event", [_moved(QUEUED), _moved(PAUSED), JobDeleted("a")])
def test_a_job_without_processes_is_unknown(live: LiveStatus, event: JobEvent) -> None:
    """Neither figures nor an explanation are left."""
    _update(live, "a")
    _explain(live, "waits for CPUs")
    live.receive(event)
    assert live.progress("a") is None
    assert live.add_live_status(_queued()).reason == "waits for its turn"


def test_an_attempt_begins_with_what_the_job_asks_for(live: LiveStatus) -> None:
    """Its figures go on from those of the job, but nobody works yet; later the newest number of workers counts."""
    spec = spec_pb.JobSpec(distribution=spec_pb.DistributionSpec(workers=3), checkpoints={"every_seconds": 30})
    progress = jobs_pb.Progress(step=7, workers_alive=2, samples_per_second=9)
    live.receive(_moved(STARTING, spec=spec, attempt=2, progress=progress, update_time={"seconds": 50}))
    status = live.snapshot()["a"]
    assert (status.attempt, status.workers, status.checkpoint_time, status.checkpoint_interval) == (2, 3, 50, 30)
    assert status.progress == jobs_pb.Progress(step=7)
    live.receive(WorkersChanged("a", 5))
    assert live.snapshot()["a"].workers == 5


def test_checkpoints_are_counted_for_each_attempt(live: LiveStatus) -> None:
    """An attempt begins with the step of the checkpoint that it goes on from."""
    live.receive(_moved(STARTING))
    live.receive(AttemptResumed("a", 2, 10))
    status = live.snapshot()["a"]
    assert (status.checkpoints, status.checkpoint_step) == (0, 10)
    live.receive(CheckpointWritten("a", jobs_pb.Checkpoint(step=20), 0.5, 99.0))
    live.receive(CheckpointFailed("a", ""))
    assert (status.checkpoints, status.checkpoint_step, status.checkpoint_time) == (1, 20, 99)
    assert status.checkpoint_failures == 1


def test_the_end_of_a_job_that_cannot_be_written_is_told(live: LiveStatus) -> None:
    """In place of the reason that the database has, until the job moves."""
    live.receive(EndUnwritten("a", "done (not written down yet)"))
    running = jobs_pb.Job(job_id="a", state=RUNNING, reason="it runs")
    assert live.add_live_status(running).reason == "done (not written down yet)"
    live.receive(_moved(SUCCEEDED))
    running.reason = "it runs"
    assert live.add_live_status(running).reason == "it runs"


def test_a_queued_job_says_why_it_waits(live: LiveStatus) -> None:
    """The explanation stands in for the reason; the newest one counts."""
    _explain(live, "waits for CPUs")
    _explain(live, "waits for nodes")
    assert live.add_live_status(_queued()).reason == "waits for nodes"


@pytest.mark.parametrize("state", [state for state in jobs_pb.JobState.values() if state != jobs_pb.JOB_STATE_QUEUED])
def test_only_a_queued_job_is_explained(live: LiveStatus, state: jobs_pb.JobState.ValueType) -> None:
    """In any other state, the reason of the last move is the reason."""
    _explain(live, "waits for CPUs")
    assert live.add_live_status(jobs_pb.Job(job_id="a", state=state, reason="it is so")).reason == "it is so"


def test_a_job_that_ended_and_waits_again_is_not_explained_by_what_was(live: LiveStatus) -> None:
    """The end takes the explanation away."""
    _explain(live, "waits for CPUs")
    live.receive(_moved(SUCCEEDED))
    assert live.add_live_status(_queued("tried again")).reason == "tried again"


def test_a_running_job_has_its_newest_progress_and_an_ended_one_its_own(live: LiveStatus) -> None:
    """What an ended job keeps are the figures of its last epoch."""
    _update(live, "a", 7)
    running = jobs_pb.Job(job_id="a", state=jobs_pb.JOB_STATE_RUNNING, progress=jobs_pb.Progress(step=5))
    ended = jobs_pb.Job(job_id="a", state=jobs_pb.JOB_STATE_SUCCEEDED, progress=jobs_pb.Progress(step=5))
    assert live.add_live_status(running).progress.step == 7
    assert live.add_live_status(ended).progress.step == 5


@pytest.mark.parametrize(
    "event",
    [
        ProgressReported("a", jobs_pb.Progress(step=1)),
        *map(_moved, jobs_pb.JobState.values()),
        JobDeleted("a"),
        WaitingExplained("a", "waits for CPUs"),
        EndUnwritten("a", "done"),
        Notice("a", "something"),
    ],
)
async def test_every_event_of_a_job_notifies_those_who_wait_for_one(live: LiveStatus, event: JobEvent) -> None:
    """All of them are woken, and who asks later waits for the next event; only an end ends the wait for the end."""
    change, end = live.next_change("a"), live.next_end("a")
    assert live.next_change("a") is change
    live.receive(event)
    await asyncio.wait_for(change.wait(), 10)
    assert not live.next_change("a").is_set()
    assert end.is_set() == (isinstance(event, StateChanged) and event.job.state in ENDED)


def test_everybody_can_be_woken(live: LiveStatus) -> None:
    """When the service goes away."""
    change, end = live.next_change("a"), live.next_end("b")
    live.notify_all()
    assert change.is_set()
    assert end.is_set()


def test_an_explanation_can_be_taken_back(live: LiveStatus) -> None:
    """When a client has changed what the job asks for, what it waited for says nothing any more."""
    _explain(live, "waits for CPUs")
    live.receive(WorkersChanged("a", 2))
    assert live.waiting_reason("a") == ""
    assert live.add_live_status(_queued()).reason == "waits for its turn"


def test_what_happens_to_others_and_what_is_known_already_wakes_nobody(live: LiveStatus) -> None:
    """A notification belongs to one job, and an explanation that says nothing new is none."""
    _explain(live, "waits for CPUs")
    change = live.next_change("a")
    _update(live, "b")
    _explain(live, "waits for CPUs")
    assert not change.is_set()
