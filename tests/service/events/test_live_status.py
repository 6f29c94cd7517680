"""What is known of jobs beyond the database."""

import asyncio

import pytest

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.events.live_status import LiveJobs


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def live(clock: Clock) -> LiveJobs:
    return LiveJobs(clock)


def _update(live: LiveJobs, job_id: str, step: int = 1) -> None:
    live.update(
        job_id,
        jobs_pb.Progress(step=step, workers_alive=2, samples_per_second=9),
        ps_pb.Telemetry(workers_lost=1, transport_workers={"shared": 2}, process=ps_pb.ProcessFigures(cpu_seconds=1)),
    )


def _queued(reason: str = "waits for its turn") -> jobs_pb.Job:
    return jobs_pb.Job(job_id="a", state=jobs_pb.JOB_STATE_QUEUED, reason=reason)


def test_the_newest_figures_are_known(live: LiveJobs) -> None:
    """New figures replace those before; of a job that was never told about, nothing is known."""
    _update(live, "a", 1)
    _update(live, "a", 2)
    assert live.progress("a").step == 2
    assert live.progress("b") is None
    assert list(live.snapshot()) == ["a"]


def test_telemetry_stays_until_newer_comes(live: LiveJobs) -> None:
    """It is not asked for with every progress."""
    _update(live, "a", 1)
    live.update("a", jobs_pb.Progress(step=2))
    known = live.snapshot()["a"]
    assert (known.progress.step, known.telemetry.workers_lost) == (2, 1)


def test_states_end_with_the_job_and_totals_stay_for_a_while(live: LiveJobs, clock: Clock) -> None:
    """At the end workers and speed go to zero, totals stay as they are, and later everything goes."""
    _update(live, "a")
    live.end("a")
    ended = live.snapshot()["a"]
    assert (ended.progress.workers_alive, ended.progress.samples_per_second) == (0, 0)
    assert (dict(ended.telemetry.transport_workers), ended.telemetry.workers_lost) == ({}, 1)
    assert not ended.telemetry.HasField("process")
    clock.seconds = 899
    assert "a" in live.snapshot()
    clock.seconds = 901
    assert "a" not in live.snapshot()


def test_a_forgotten_job_is_unknown(live: LiveJobs) -> None:
    """Neither figures nor an explanation are left."""
    _update(live, "a")
    live.explain("a", "waits for CPUs")
    live.forget("a")
    assert live.progress("a") is None
    assert live.brought_up_to_date(_queued()).reason == "waits for its turn"


def test_a_queued_job_says_why_it_waits(live: LiveJobs) -> None:
    """The explanation stands in for the reason; the newest one counts."""
    live.explain("a", "waits for CPUs")
    live.explain("a", "waits for nodes")
    assert live.brought_up_to_date(_queued()).reason == "waits for nodes"


@pytest.mark.parametrize("state", [state for state in jobs_pb.JobState.values() if state != jobs_pb.JOB_STATE_QUEUED])
def test_only_a_queued_job_is_explained(live: LiveJobs, state: jobs_pb.JobState.ValueType) -> None:
    """In any other state, the reason of the last move is the reason."""
    live.explain("a", "waits for CPUs")
    assert live.brought_up_to_date(jobs_pb.Job(job_id="a", state=state, reason="it is so")).reason == "it is so"


def test_a_job_that_ended_and_waits_again_is_not_explained_by_what_was(live: LiveJobs) -> None:
    """The end takes the explanation away."""
    live.explain("a", "waits for CPUs")
    live.end("a")
    assert live.brought_up_to_date(_queued("tried again")).reason == "tried again"


def test_a_running_job_has_its_newest_progress_and_an_ended_one_its_own(live: LiveJobs) -> None:
    """What an ended job keeps are the figures of its last epoch."""
    _update(live, "a", 7)
    running = jobs_pb.Job(job_id="a", state=jobs_pb.JOB_STATE_RUNNING, progress=jobs_pb.Progress(step=5))
    ended = jobs_pb.Job(job_id="a", state=jobs_pb.JOB_STATE_SUCCEEDED, progress=jobs_pb.Progress(step=5))
    assert live.brought_up_to_date(running).progress.step == 7
    assert live.brought_up_to_date(ended).progress.step == 5


@pytest.mark.parametrize(
    "happen",
    [
        lambda live: _update(live, "a"),
        lambda live: live.end("a"),
        lambda live: live.forget("a"),
        lambda live: live.explain("a", "waits for CPUs"),
        lambda live: live.ring("a"),
        lambda live: live.ring_all(),
    ],
)
def test_whatever_happens_to_a_job_rings_its_bell(live: LiveJobs, happen) -> None:
    """All who have the bell are woken, and the next one is silent again."""

    async def scene() -> None:
        bell = live.bell("a")
        assert live.bell("a") is bell
        happen(live)
        await asyncio.wait_for(bell.wait(), 10)
        assert not live.bell("a").is_set()

    asyncio.run(scene())


def test_an_explanation_can_be_taken_back(live: LiveJobs) -> None:
    """When a client has changed what the job asks for, what it waited for says nothing any more."""
    live.explain("a", "waits for CPUs")
    live.explain("a", "")
    assert live.explanation("a") == ""
    assert live.brought_up_to_date(_queued()).reason == "waits for its turn"


def test_what_happens_to_others_and_what_is_known_already_wakes_nobody(live: LiveJobs) -> None:
    """A bell belongs to one job, and an explanation that says nothing new is none."""
    live.explain("a", "waits for CPUs")
    bell = live.bell("a")
    _update(live, "b")
    live.explain("a", "waits for CPUs")
    assert not bell.is_set()
