"""The controller: order of the queue, ends of attempts, and what clients ask for; on a cluster of the test's making."""

import asyncio
import errno
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, NoReturn

import pytest
from prometheus_client import CollectorRegistry

from nablad.v1 import cluster_pb2 as cluster_pb
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from service.control.admission import Admission
from service.control.controller import Controller
from service.control.interfaces import Ending
from service.errors import AttemptFailed, AttemptLost, DatabaseRowError, ServiceError, StoredDatasetError
from service.events.live_status import LiveStatus
from service.events.publisher import EventPublisher
from service.metrics.event_metrics import EventMetrics
from service.metrics.instruments import Instruments
from service.stores.database import Database
from service.stores.job_states import ENDED, PAUSED, QUEUED, RUNNING, STARTING, SUCCEEDED, state_name
from service.stores.jobs import JobStore, QueuedJob

NOW = datetime.fromisoformat("2026-01-01T00:00:00+00:00")


class FakeJobProcesses:
    """CPUs without processes."""

    def __init__(self, cluster: "FakeCluster", cpus: int) -> None:
        self._cluster = cluster
        self._cpus = cpus

    async def start(self, *_: object) -> str:
        raise AssertionError("attempts of these tests start nothing")

    async def wait_for_failure(self) -> NoReturn:
        raise AssertionError("attempts of these tests do not fail by their processes")

    async def scale_workers(self, *_: object) -> None:
        raise AssertionError("attempts of these tests do not scale")

    async def stop(self) -> None:
        try:
            if self._cluster.stopping:
                await self._cluster.stopping.wait()
        finally:
            self._cluster.free += self._cpus


class FakeCluster:
    """A node."""

    def __init__(self, cpus: int) -> None:
        self.cpus = cpus
        self.free = cpus
        self.looks = 0
        self.on_reserve: Callable[[], None] = lambda: None
        self.stopping: asyncio.Event | None = None

    async def list_nodes(self) -> list[cluster_pb.Node]:
        self.looks += 1
        return [cluster_pb.Node(cpus=self.cpus, free_cpus=self.free)]

    async def reserve_cpus(self, workers: int, cpus_per_worker: int) -> FakeJobProcesses | None:
        self.on_reserve()
        if self.free < workers * cpus_per_worker:
            return None
        self.free -= workers * cpus_per_worker
        return FakeJobProcesses(self, workers * cpus_per_worker)


class FakeAttempt:
    """An attempt that runs until the test ends it."""

    def __init__(self, stage: "Stage", job: jobs_pb.Job) -> None:
        self._stage = stage
        self._job_id = job.job_id
        self.attempt = job.attempt
        self.end: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self.workers: list[int] = []
        self.checkpoints: list[jobs_pb.Checkpoint | Exception] = []
        self.last_word: Callable[[], None] = lambda: None

    async def run(self) -> Ending:
        self._stage.events.move_job(self._job_id, RUNNING, "test")
        await self._stage.has_started(self._job_id, self)
        try:
            return await self.end
        finally:
            self.last_word()

    async def checkpoint(self) -> jobs_pb.Checkpoint | None:
        taken = self.checkpoints.pop() if self.checkpoints else None
        if isinstance(taken, Exception):
            raise taken
        return taken

    async def scale_workers(self) -> None:
        self.workers.append(self._stage.jobs.get(self._job_id).spec.distribution.workers)

    async def clean_up(self) -> None:
        self.cleaned_up = state_name(self._stage.jobs.get(self._job_id).state)

    def succeed(self) -> None:
        self.end.set_result(Ending("done", "the-model"))

    def lose(self, cause: str = "parameter_server") -> None:
        self.end.set_exception(AttemptLost("it was lost", cause=cause, error_lines="last words"))


class Stage:
    """A running controller with what surrounds it."""

    def __init__(self, jobs: JobStore, cpus: int, time: datetime = NOW) -> None:
        self.jobs = jobs
        self.cluster = FakeCluster(cpus)
        self.live = LiveStatus(lambda: 0.0)
        self.started: list[str] = []
        self.attempts: dict[str, FakeAttempt] = {}
        self.time = time
        self.clock = 0.0
        self._news = asyncio.Condition()
        self.registry = CollectorRegistry()
        metrics = EventMetrics(Instruments(self.registry), lambda: 0.0)
        self.events = EventPublisher(jobs, self.live.receive, metrics.receive)
        self.controller = Controller(
            jobs,
            self.events,
            self.cluster,
            lambda job, _: FakeAttempt(self, job),
            lambda: self.time,
            lambda: self.clock,
            Admission(),
        )

    def sample(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    async def has_started(self, job_id: str, attempt: FakeAttempt) -> None:
        self.started.append(job_id)
        self.attempts[job_id] = attempt
        async with self._news:
            self._news.notify_all()

    async def wait_started(self, count: int) -> None:
        async with self._news, asyncio.timeout(60):
            await self._news.wait_for(lambda: len(self.started) >= count)

    def submit(self, workers: int = 1, priority: int = 0, attempts: int = 3) -> str:
        spec = spec_pb.JobSpec(
            name="a",
            priority=priority,
            distribution=spec_pb.DistributionSpec(workers=workers, cpus_per_worker=1),
            limits=spec_pb.LimitsSpec(attempts=attempts),
        )
        job_id = self.jobs.create(spec, "").job_id
        self.controller.wake()
        return job_id

    def state(self, job_id: str) -> str:
        return state_name(self.jobs.get(job_id).state)

    async def wait_for(self, job_id: str, state: str) -> None:
        async with asyncio.timeout(60):
            while self.state(job_id) != state:
                await self.live.next_change(job_id).wait()

    async def wait_for_reason(self, job_id: str, reason: str) -> None:
        async with asyncio.timeout(60):
            while reason not in self.live.add_live_status(self.jobs.get(job_id)).reason:
                await self.live.next_change(job_id).wait()

    async def settle(self) -> None:
        """Lets the controller reconcile the queue, with all that follows at once."""
        looks = self.cluster.looks
        self.controller.wake()
        async with asyncio.timeout(60):
            while self.cluster.looks == looks:  # noqa: ASYNC110 (a counter, not an event)
                await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)

    def pass_time(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)
        self.clock += seconds
        self.controller.wake()

    def set_time(self, days: float) -> None:
        """The time of day is set, and goes on from there."""
        self.time += timedelta(days=days)
        self.controller.wake()


@asynccontextmanager
async def _play(
    jobs: JobStore,
    cpus: int,
    time: datetime = NOW,
    *,
    after_crash: bool = False,
) -> AsyncIterator[Stage]:
    stage = Stage(jobs, cpus, time)
    task = asyncio.create_task(stage.controller.run(after_crash=after_crash))
    try:
        yield stage
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert stage.cluster.free == stage.cluster.cpus


@pytest.fixture
def short_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The controller reconciles the queue as soon as something changes."""
    monkeypatch.setattr("service.control.controller._SHORTEST_INTERVAL_SECONDS", 0.01)


# -- the queue ---------------------------------------------------------------------------------------------------------


async def test_jobs_start_by_priority_then_age(jobs: JobStore) -> None:
    """As CPUs become free."""
    async with _play(jobs, 1) as stage:
        first = stage.submit()
        await stage.wait_started(1)
        low, older, newer, high = (stage.submit(priority=priority) for priority in (-1, 0, 0, 5))
        for count, job_id in enumerate([first, high, older, newer, low], start=1):
            await stage.wait_started(count)
            assert stage.started[-1] == job_id
            stage.attempts[job_id].succeed()
        await stage.wait_for(low, "succeeded")


async def test_a_small_job_passes_a_big_one_that_waits_but_not_for_ever(jobs: JobStore) -> None:
    """After a minute the big one's CPUs are kept for it."""
    async with _play(jobs, 4) as stage:
        first, big, small = stage.submit(3), stage.submit(4), stage.submit(1)
        await stage.wait_started(2)
        assert stage.started == [first, small]
        await stage.wait_for_reason(big, "waits for free CPUs, for 4 workers with 1 CPU each")
        stage.pass_time(61)
        stage.attempts[small].succeed()
        late = stage.submit(1)
        await stage.wait_for(small, "succeeded")
        assert stage.started == [first, small]
        stage.attempts[first].succeed()
        await stage.wait_started(3)
        stage.attempts[big].succeed()
        await stage.wait_started(4)
        assert stage.started == [first, small, big, late]


async def test_a_job_that_was_cancelled_while_its_cpus_were_reserved_does_not_start(jobs: JobStore) -> None:
    """Nor one that wants another number of workers by then; the CPUs go back."""
    async with _play(jobs, 2) as stage:
        job_id = stage.submit(2)
        stage.cluster.on_reserve = lambda: (
            jobs.set_workers(job_id, 1, "scaled") and None if jobs.get(job_id).spec.distribution.workers == 2 else None
        )
        await stage.wait_started(1)
        assert stage.cluster.free == 1


# -- ends --------------------------------------------------------------------------------------------------------------


async def test_an_attempt_that_ends_well_makes_a_model(jobs: JobStore) -> None:
    """The job succeeds, says why it ended, and names the model."""
    async with _play(jobs, 1) as stage:
        job_id = stage.submit()
        await stage.wait_started(1)
        stage.attempts[job_id].succeed()
        await stage.wait_for(job_id, "succeeded")
        job = jobs.get(job_id)
        assert (job.reason, job.model_id) == ("done", "the-model")
        assert stage.attempts[job_id].cleaned_up == "succeeded"


async def test_a_failed_attempt_fails_the_job_with_its_sentence(jobs: JobStore) -> None:
    """What another attempt would only repeat is not tried again."""
    async with _play(jobs, 1) as stage:
        job_id = stage.submit()
        await stage.wait_started(1)
        stage.attempts[job_id].end.set_exception(AttemptFailed("it diverged", error_lines="lines"))
        await stage.wait_for(job_id, "failed")
        assert (jobs.get(job_id).reason, jobs.get(job_id).last_error_lines) == ("it diverged", "lines")
        assert jobs.get(job_id).failure_kind == jobs_pb.FAILURE_KIND_ENVIRONMENT


async def test_a_lost_attempt_is_followed_by_another_later_each_time(jobs: JobStore) -> None:
    """After 1, 2, 4… s; after the last that the limits allow the job fails, with cause, last lines and advice."""
    async with _play(jobs, 1) as stage:
        job_id = stage.submit(attempts=4)
        for attempt, pause in ((1, 1), (2, 2), (3, 4)):
            await stage.wait_started(attempt)
            stage.attempts[job_id].lose()
            await stage.wait_for(job_id, "queued")
            assert f"it was lost; attempt {attempt + 1} follows in {pause} s" in jobs.get(job_id).reason
            stage.pass_time(pause - 0.5)
            await asyncio.sleep(0)
            assert len(stage.started) == attempt
            stage.pass_time(0.6)
        await stage.wait_started(4)
        stage.attempts[job_id].lose()
        await stage.wait_for(job_id, "failed")
        job = jobs.get(job_id)
        assert (job.attempt, job.lost_attempts, job.last_error_lines) == (4, 4, "last words")
        assert "it was lost; given up after 4 attempts in a row were lost without a newer checkpoint" in job.reason
        assert f"nabla job retry {job_id}" in job.reason
        assert job.failure_kind == jobs_pb.FAILURE_KIND_LOST


@pytest.mark.parametrize("days", [-1, 1])
@pytest.mark.usefixtures("short_rest")
async def test_a_clock_that_is_set_shortens_and_lengthens_no_pause(jobs: JobStore, days: int) -> None:
    """The next attempt follows when it was said to, however the time of day is set meanwhile."""
    async with _play(jobs, 1) as stage:
        job_id = stage.submit(attempts=4)
        for attempt, pause in ((1, 1), (2, 2), (3, 4)):
            await stage.wait_started(attempt)
            stage.attempts[job_id].lose()
            await stage.wait_for(job_id, "queued")
            await stage.settle()
            stage.set_time(days)
            stage.pass_time(pause - 0.5)
            await stage.settle()
            assert len(stage.started) == attempt
            stage.pass_time(0.6)
        await stage.wait_started(4)


@pytest.mark.parametrize(("days", "pause"), [(-1, 4.0), (-0.00002, 4.0), (0, 3.5), (1, 0.0)])
@pytest.mark.usefixtures("short_rest")
async def test_a_clock_that_was_set_while_the_service_was_down_lengthens_no_pause(
    jobs: JobStore, days: float, pause: float
) -> None:
    """A job waits at most for its whole pause, here of 4 s, of which half a second has passed."""
    submitted: list[str] = []

    async with _play(jobs, 1) as stage:
        submitted.append(stage.submit(attempts=4))
        for attempt in (1, 2, 3):
            await stage.wait_started(attempt)
            stage.attempts[submitted[0]].lose()
            await stage.wait_for(submitted[0], "queued")
            if attempt < 3:
                stage.pass_time(4)
    async with _play(jobs, 1, NOW + timedelta(seconds=8.5, days=days)) as stage:
        if pause:
            stage.pass_time(0)
            await stage.settle()
            stage.pass_time(pause - 0.01)
            await stage.settle()
            assert stage.started == []
            stage.pass_time(0.02)
        await stage.wait_started(1)


@pytest.mark.parametrize("days", [-1, 1])
@pytest.mark.usefixtures("short_rest")
async def test_a_clock_that_is_set_changes_nothing_about_who_is_passed(jobs: JobStore, days: int) -> None:
    """A minute at the head of the queue is a minute."""
    async with _play(jobs, 4) as stage:
        first, big, small = stage.submit(3), stage.submit(4), stage.submit(1)
        await stage.wait_started(2)
        await stage.wait_for_reason(big, "waits for free CPUs, for 4 workers with 1 CPU each")
        stage.set_time(days)
        stage.pass_time(50)
        stage.attempts[small].succeed()
        passes = stage.submit(1)
        await stage.wait_started(3)
        assert stage.started == [first, small, passes]
        stage.pass_time(11)
        stage.attempts[passes].succeed()
        late = stage.submit(1)
        await stage.wait_for(passes, "succeeded")
        await stage.settle()
        assert late not in stage.started
        stage.attempts[first].succeed()
        await stage.wait_started(4)
        assert stage.started[-1] == big


async def test_a_clock_that_is_set_back_makes_no_wait_negative(jobs: JobStore) -> None:
    """Prometheus would take a histogram whose sum falls for a restart."""
    async with _play(jobs, 1) as stage:
        first, second = stage.submit(), stage.submit()
        await stage.wait_started(1)
        stage.set_time(-1000)
        stage.attempts[first].succeed()
        await stage.wait_started(2)
        assert stage.started == [first, second]
        assert stage.sample("nablad_queue_wait_seconds_sum", priority="normal") == 0


async def test_a_checkpoint_in_between_begins_the_count_anew(jobs: JobStore) -> None:
    """Losses far apart do not add up."""
    async with _play(jobs, 1) as stage:
        job_id = stage.submit(attempts=2)
        for attempt in range(1, 5):
            await stage.wait_started(attempt)
            jobs.reset_lost_attempts(job_id)
            stage.attempts[job_id].lose()
            await stage.wait_for(job_id, "queued")
            stage.pass_time(60)
        await stage.wait_started(5)


async def test_the_loss_of_ray_is_not_one_of_the_attempts_that_a_job_has(jobs: JobStore) -> None:
    """Not even with a single attempt; a loss of its own does."""
    async with _play(jobs, 1) as stage:
        job_id = stage.submit(attempts=1)
        for attempt in range(1, 4):
            await stage.wait_started(attempt)
            stage.attempts[job_id].lose("ray")
            await stage.wait_for(job_id, "queued")
            stage.pass_time(60)
        await stage.wait_started(4)
        assert (jobs.get(job_id).lost_attempts, jobs.get(job_id).lost_with_ray) == (0, 3)
        stage.attempts[job_id].lose()
        await stage.wait_for(job_id, "failed")


async def test_a_job_that_is_lost_with_ray_again_and_again_is_given_up(jobs: JobStore) -> None:
    """Later each time, and not if there is headway in between; it is said what that may come from."""
    async with _play(jobs, 1) as stage:
        job_id = stage.submit(attempts=1)
        for attempt in range(1, 31):
            await stage.wait_started(attempt)
            if attempt == 10:
                jobs.reset_lost_attempts(job_id)
            stage.attempts[job_id].lose("ray")
            if attempt < 29:
                await stage.wait_for(job_id, "queued")
                pause = 2 ** ((attempt - 1) if attempt < 10 else (attempt - 10))
                assert f"follows in {min(pause, 60)} s" in jobs.get(job_id).reason
                stage.pass_time(60.1)
            else:
                await stage.wait_for(job_id, "failed")
                break
        job = jobs.get(job_id)
        assert (job.attempt, job.lost_with_ray) == (29, 20)
        assert "given up after 20 attempts in a row were lost" in job.reason
        assert "memory" in job.reason


async def test_an_error_of_the_service_fails_only_that_job(jobs: JobStore) -> None:
    """The next job runs."""
    async with _play(jobs, 1) as stage:
        broken, sound = stage.submit(), stage.submit()
        await stage.wait_started(1)
        stage.attempts[broken].end.set_exception(RuntimeError("a bug"))
        await stage.wait_started(2)
        assert (stage.state(broken), stage.state(sound)) == ("failed", "running")


async def test_what_could_not_be_written_is_tried_again(jobs: JobStore) -> None:
    """A disk that was full for a moment costs an attempt, not the job."""
    async with _play(jobs, 1) as stage:
        job_id = stage.submit()
        await stage.wait_started(1)
        stage.attempts[job_id].end.set_exception(OSError(28, "No space left on device"))
        await stage.wait_for(job_id, "queued")
        assert "could not write: [Errno 28] No space left on device; attempt 2 follows" in jobs.get(job_id).reason
        stage.pass_time(2)
        await stage.wait_started(2)


async def test_cpus_that_come_back_are_given_out_at_once(jobs: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the queue is left alone while nobody gives any back."""
    monkeypatch.setattr("service.control.controller._SHORTEST_INTERVAL_SECONDS", 3600.0)
    monkeypatch.setattr("service.control.controller._LONGEST_INTERVAL_SECONDS", 3600.0)

    async with _play(jobs, 1) as stage:
        first = stage.submit()
        await stage.wait_started(1)
        second = stage.submit()
        await stage.wait_for_reason(second, "waits for")
        stage.attempts[first].succeed()
        await stage.wait_started(2)


async def test_a_loss_that_cannot_be_written_down_counts_once(jobs: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is tried again."""
    old = jobs.create(
        spec_pb.JobSpec(name="a", distribution=spec_pb.DistributionSpec(workers=1, cpus_per_worker=1)), ""
    )
    jobs.move(old.job_id, STARTING, "by a daemon that is gone")
    move, refused = jobs.move, []

    def full(*arguments: Any, **changes: Any) -> jobs_pb.Job:
        if len(refused) < 2:
            refused.append(arguments)
            raise sqlite3.OperationalError("database or disk is full")
        return move(*arguments, **changes)

    monkeypatch.setattr(jobs, "move", full)
    monkeypatch.setattr("service.control.controller._LONGEST_INTERVAL_SECONDS", 0.01)

    async with _play(jobs, 1) as stage:
        await stage.wait_started(1)
        assert len(refused) == 2
        assert stage.sample("nablad_attempts_lost_total", cause="service") == 1


def _full_until(jobs: JobStore, monkeypatch: pytest.MonkeyPatch, state: int) -> asyncio.Event:
    """Moves into a state are refused by a full disk until the event is set."""
    move, room = jobs.move, asyncio.Event()

    def full(job_id: str, target: int, *arguments: Any, **changes: Any) -> jobs_pb.Job:
        if target == state and not room.is_set():
            raise sqlite3.OperationalError("database or disk is full")
        return move(job_id, target, *arguments, **changes)  # type: ignore[arg-type]

    monkeypatch.setattr(jobs, "move", full)
    return room


async def test_a_job_that_cannot_be_started_says_why(jobs: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its CPUs are free meanwhile, and it starts when there is room."""
    room = _full_until(jobs, monkeypatch, STARTING)

    async with _play(jobs, 1) as stage:
        job_id = stage.submit()
        await stage.wait_for_reason(job_id, "write down that it starts (database or disk is full)")
        await stage.settle()
        assert stage.cluster.free == 1
        room.set()
        stage.controller.wake()
        await stage.wait_started(1)


async def test_a_success_that_cannot_be_written_down_is_one_later(
    jobs: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its model is not trained again; meanwhile the job says what became of it."""
    room = _full_until(jobs, monkeypatch, SUCCEEDED)

    async with _play(jobs, 1) as stage:
        job_id = stage.submit()
        await stage.wait_started(1)
        stage.attempts[job_id].succeed()
        await stage.wait_for_reason(job_id, "done (not written down yet: database or disk is full)")
        assert stage.state(job_id) == "running"
        room.set()
        stage.controller.wake()
        await stage.wait_for(job_id, "succeeded")
        job = jobs.get(job_id)
        assert (job.reason, job.model_id, job.attempt) == ("done", "the-model", 1)


def test_a_loss_that_cannot_be_written_down_keeps_its_cause(jobs: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts once, as what it was, and not as the service's."""
    room = _full_until(jobs, monkeypatch, QUEUED)

    async def scene(stage: Stage) -> None:
        job_id = stage.submit()
        await stage.wait_started(1)
        stage.attempts[job_id].lose("worker")
        await stage.wait_for_reason(job_id, "it was lost; attempt 2 follows in 1 s (not written down yet")
        room.set()
        stage.controller.wake()
        await stage.wait_for(job_id, "queued")
        assert jobs.get(job_id).lost_attempts == 1
        lost = {cause: stage.sample("nablad_attempts_lost_total", cause=cause) for cause in ("worker", "service")}
        assert lost == {"worker": 1, "service": 0}


async def test_a_damaged_job_is_in_nobody_s_way(jobs: JobStore, database: Database) -> None:
    """Though it is the first in the queue: it is passed by, once and for all, and the others start."""
    async with _play(jobs, 1) as stage:
        first = stage.submit()
        await stage.wait_started(1)
        damaged, other, later = stage.submit(priority=5), stage.submit(), stage.submit()
        database.rows("UPDATE jobs SET body = x'00' WHERE job_id = ?", damaged)
        for count, job_id in enumerate([first, other, later], start=1):
            await stage.wait_started(count)
            stage.attempts[job_id].succeed()
        await stage.wait_for(later, "succeeded")
        assert stage.started == [first, other, later]
        with pytest.raises(DatabaseRowError):
            await stage.controller.commands.cancel(damaged)


def _damage_events(jobs: JobStore, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Moves of these jobs find the events damaged that they would add to."""
    move, damaged = jobs.move, set[str]()

    def read(job_id: str, *arguments: Any, **changes: Any) -> jobs_pb.Job:
        if job_id in damaged:
            raise DatabaseRowError("the service's database is damaged")
        return move(job_id, *arguments, **changes)

    monkeypatch.setattr(jobs, "move", read)
    return damaged


async def test_a_job_whose_events_are_damaged_is_in_nobody_s_way(
    jobs: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither when it is to start nor when it has no processes any more."""
    damaged = _damage_events(jobs, monkeypatch)

    async with _play(jobs, 1) as stage:
        first = stage.submit()
        await stage.wait_started(1)
        second, third = stage.submit(priority=5), stage.submit()
        damaged.update((first, second))
        stage.attempts[first].lose()
        await stage.wait_started(2)
        assert stage.started == [first, third]
        assert [stage.state(job_id) for job_id in (first, second)] == ["running", "queued"]
        await stage.controller.drain()


async def test_what_was_to_be_written_down_of_a_deleted_job_stops_no_service(
    jobs: JobStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged one can be deleted while its end is still to be written down."""
    room = _full_until(jobs, monkeypatch, SUCCEEDED)

    async with _play(jobs, 1) as stage:
        job_id = stage.submit()
        await stage.wait_started(1)
        stage.attempts[job_id].succeed()
        await stage.wait_for_reason(job_id, "not written down yet")
        database.rows("UPDATE jobs SET body = x'00' WHERE job_id = ?", job_id)
        jobs.delete(job_id)
        room.set()
        await stage.controller.drain()


async def test_what_waits_in_the_queue_alone_is_in_nobody_s_way(
    jobs: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even while it waits for its next attempt."""
    known = jobs.queued_jobs

    def waiting() -> list[QueuedJob]:
        return [QueuedJob("gone", 99, 9, 1, 1, NOW.timestamp() + 60, NOW.timestamp()), *known()]

    monkeypatch.setattr(jobs, "queued_jobs", waiting)

    async with _play(jobs, 1) as stage:
        job_id = stage.submit()
        await stage.wait_started(1)
        assert stage.started == [job_id]


async def test_what_is_damaged_is_not_tried_again(jobs: JobStore) -> None:
    """Another attempt would read the same: the job fails at once, with the sentence."""
    async with _play(jobs, 1) as stage:
        job_id = stage.submit(attempts=3)
        await stage.wait_started(1)
        stage.attempts[job_id].end.set_exception(StoredDatasetError("data set 'd' is gone: add it again"))
        await stage.wait_for(job_id, "failed")
        assert jobs.get(job_id).reason == "data set 'd' is gone: add it again"
        assert jobs.get(job_id).attempt == 1


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/d/x"), "could not write: [Errno 28] No space left"),
        (sqlite3.OperationalError("disk I/O error"), "could not write: disk I/O error"),
        (OSError(errno.ESTALE, "Stale file handle", "/d/x"), "could not read or write: [Errno 116] Stale file handle"),
    ],
)
async def test_only_a_failed_write_is_called_one(jobs: JobStore, error: Exception, sentence: str) -> None:
    """The next attempt follows all the same: such errors pass."""
    async with _play(jobs, 1) as stage:
        job_id = stage.submit()
        await stage.wait_started(1)
        stage.attempts[job_id].end.set_exception(error)
        await stage.wait_for(job_id, "queued")
        assert jobs.get(job_id).reason.startswith(f"the service {sentence}")


# -- what clients ask for ----------------------------------------------------------------------------------------------


async def test_what_has_ended_stays_ended_while_its_processes_are_stopped(jobs: JobStore) -> None:
    """A client that cancels in that moment is told so, and loses no model."""
    async with _play(jobs, 1) as stage:
        job_id = stage.submit()
        await stage.wait_started(1)
        stage.cluster.stopping = asyncio.Event()
        stage.attempts[job_id].succeed()
        await stage.wait_for(job_id, "succeeded")
        assert stage.cluster.free == 0
        cancel = asyncio.create_task(stage.controller.commands.cancel(job_id))
        await asyncio.sleep(0)
        stage.cluster.stopping.set()
        with pytest.raises(ServiceError, match="has ended already"):
            await cancel
        assert jobs.get(job_id).model_id == "the-model"


@pytest.mark.parametrize("running", [True, False])
async def test_cancelling_frees_the_cpus(jobs: JobStore, running: bool) -> None:
    """Cancelling a running job lets the next one start; a waiting one is just taken out."""
    async with _play(jobs, 1) as stage:
        first, second, third = (stage.submit() for _ in range(3))
        await stage.wait_started(1)
        await stage.controller.commands.cancel(first if running else second)
        if not running:
            stage.attempts[first].succeed()
        await stage.wait_started(2)
        assert stage.started == [first, second if running else third]
        with pytest.raises(ServiceError, match="has ended already"):
            await stage.controller.commands.cancel(first if running else second)


async def test_only_one_of_two_cancels_at_once_succeeds(jobs: JobStore) -> None:
    """The other one is told that the job has ended."""
    async with _play(jobs, 1) as stage:
        job_id = stage.submit()
        await stage.wait_started(1)
        cancels = [stage.controller.commands.cancel(job_id) for _ in range(3)]
        outcomes = await asyncio.gather(*cancels, return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Job", "ServiceError", "ServiceError"]


async def test_a_cancelled_job_is_not_written_to_any_more(jobs: JobStore) -> None:
    """What its attempt still does while it is being stopped comes before the last event."""
    async with _play(jobs, 1) as stage:
        job_id = stage.submit()
        await stage.wait_started(1)
        stage.attempts[job_id].last_word = lambda: jobs.append_event(job_id, "a last word", worker_joined=False)
        await stage.controller.commands.cancel(job_id)
        assert [event.message for event in jobs.events(job_id, 1)][-2:] == [
            "a last word",
            "cancelled: cancelled by a client",
        ]


async def test_a_paused_job_says_where_it_goes_on_and_waits(jobs: JobStore) -> None:
    """Its CPUs go to others; once resumed it is queued in its old place."""
    async with _play(jobs, 1) as stage:
        first, second = stage.submit(), stage.submit()
        await stage.wait_started(1)
        stage.attempts[first].checkpoints.append(jobs_pb.Checkpoint(step=7))
        paused = await stage.controller.commands.pause(first)
        assert paused.reason == "paused by a client; it goes on from step 7"
        await stage.wait_started(2)
        third = stage.submit()
        assert state_name(stage.controller.commands.resume(first).state) == "queued"
        stage.attempts[second].succeed()
        await stage.wait_started(3)
        assert stage.started == [first, second, first]
        assert stage.state(third) == "queued"
        with pytest.raises(ServiceError, match="only a paused job can be resumed"):
            stage.controller.commands.resume(first)


async def test_a_queued_job_is_paused_at_once(jobs: JobStore) -> None:
    """It has nothing to write down, and can be cancelled while it is paused."""
    async with _play(jobs, 1) as stage:
        stage.submit()
        waiting = stage.submit()
        await stage.wait_started(1)
        assert (await stage.controller.commands.pause(waiting)).reason == "paused by a client"
        with pytest.raises(ServiceError, match="cannot become paused now"):
            await stage.controller.commands.pause(waiting)
        await stage.controller.commands.cancel(waiting)
        assert stage.state(waiting) == "cancelled"


@pytest.mark.parametrize("error", [OSError(28, "full"), AttemptLost("gone", cause="parameter_server"), TimeoutError()])
async def test_a_job_is_paused_also_when_no_checkpoint_can_be_taken(jobs: JobStore, error: Exception) -> None:
    """It says that it goes on from an earlier one."""
    async with _play(jobs, 1) as stage:
        job_id = stage.submit()
        await stage.wait_started(1)
        stage.attempts[job_id].checkpoints.append(error)
        paused = await stage.controller.commands.pause(job_id)
        assert "no checkpoint could be taken: it goes on from the one before" in paused.reason


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (jobs_pb.FAILURE_KIND_DETERMINISTIC, "will end the same way unless the code or the machine is another one"),
        (jobs_pb.FAILURE_KIND_ENVIRONMENT, "will end the same way unless the cause was removed"),
    ],
)
async def test_a_retry_that_can_hardly_help_is_made_and_says_so(
    jobs: JobStore, kind: jobs_pb.FailureKind.ValueType, expected: str
) -> None:
    """What another attempt will come to is known from how the one before failed; the job itself has not failed now."""
    async with _play(jobs, 1) as stage:
        job_id = stage.submit()
        await stage.wait_started(1)
        stage.attempts[job_id].end.set_exception(AttemptFailed("it diverged", kind=kind))
        await stage.wait_for(job_id, "failed")
        assert jobs.get(job_id).failure_kind == kind
        job = stage.controller.commands.retry(job_id)
        assert expected in job.reason
        assert job.failure_kind == jobs_pb.FAILURE_KIND_UNSPECIFIED
        await stage.wait_started(2)


async def test_a_failed_job_can_be_tried_again(jobs: JobStore) -> None:
    """It starts as if nothing had been lost; other jobs cannot be tried again."""
    async with _play(jobs, 1) as stage:
        job_id = stage.submit(attempts=1)
        await stage.wait_started(1)
        with pytest.raises(ServiceError, match="only a failed job can be tried again"):
            stage.controller.commands.retry(job_id)
        stage.attempts[job_id].lose()
        await stage.wait_for(job_id, "failed")
        assert jobs.get(job_id).HasField("end_time")
        job = stage.controller.commands.retry(job_id)
        assert (job.lost_attempts, job.last_error_lines, job.HasField("end_time")) == (0, "", False)
        await stage.wait_started(2)


async def test_workers_can_be_changed_until_the_job_has_ended(jobs: JobStore) -> None:
    """The running attempt is told, the job remembers it, and an event says it."""
    async with _play(jobs, 4) as stage:
        job_id = stage.submit(1)
        await stage.wait_started(1)
        job = await stage.controller.commands.scale(job_id, 2)
        assert (job.spec.distribution.workers, stage.attempts[job_id].workers) == (2, [2])
        assert jobs.events(job_id, 1)[-1].message == "workers changed by a client from 1 to 2"
        stage.attempts[job_id].succeed()
        await stage.wait_for(job_id, "succeeded")
        with pytest.raises(ServiceError, match="has not ended"):
            await stage.controller.commands.scale(job_id, 3)


async def test_launches_waits_losses_and_ends_are_counted(jobs: JobStore) -> None:
    """By priority, by what was lost, by how it ended."""
    async with _play(jobs, 1) as stage:
        job_id = stage.submit(priority=7)
        await stage.wait_started(1)
        stage.attempts[job_id].lose("worker")
        await stage.wait_for(job_id, "queued")
        stage.pass_time(60)
        await stage.wait_started(2)
        stage.attempts[job_id].succeed()
        await stage.wait_for(job_id, "succeeded")
        assert stage.sample("nablad_attempts_total") == 2
        assert stage.sample("nablad_queue_wait_seconds_count", priority="high") == 2
        assert stage.sample("nablad_queue_wait_seconds_count", priority="normal") == 0
        assert stage.sample("nablad_attempts_lost_total", cause="worker") == 1
        assert stage.sample("nablad_jobs_ended_total", state="succeeded") == 1
        assert stage.sample("nablad_jobs_ended_total", state="failed") == 0


# -- the end of the service --------------------------------------------------------------------------------------------


async def test_jobs_that_were_launched_when_the_service_ended_are_run_again(jobs: JobStore) -> None:
    """A new daemon queues them anew: their processes are gone. That does not count as a loss."""
    distribution = spec_pb.DistributionSpec(workers=1, cpus_per_worker=1)
    old = jobs.create(spec_pb.JobSpec(name="a", distribution=distribution), "").job_id
    jobs.move(old, STARTING, "by a daemon that is gone")

    async with _play(jobs, 1) as stage:
        await stage.wait_started(1)
        assert stage.started == [old]
        assert (jobs.get(old).attempt, jobs.get(old).lost_attempts) == (2, 0)


async def _crash_while_it_runs(jobs: JobStore, job_id: str = "", *, told_to_end: bool = False) -> str:
    """A service starts, launches the job, or one that it makes, and ends without another word."""
    ran = [job_id]

    async with _play(jobs, 1, after_crash=not told_to_end) as stage:
        ran[0] = ran[0] or stage.submit()
        await stage.wait_started(1)
    return ran[0]


async def test_a_job_that_the_service_ends_with_three_times_is_set_aside(jobs: JobStore) -> None:
    """Others run then; it says why, is counted, and goes on when somebody resumes it."""
    job_id = await _crash_while_it_runs(jobs)
    for count in (1, 2):
        await _crash_while_it_runs(jobs, job_id)
        assert (jobs.get(job_id).attempt, jobs.get(job_id).lost_with_service) == (count + 1, count)
    told = " ".join(event.message for event in jobs.events(job_id, 1))
    assert "the service was restarted (2 times in a row while this job ran: after 3 it is set aside)" in told

    async with _play(jobs, 1, after_crash=True) as stage:
        other = stage.submit()
        await stage.wait_started(1)
        assert stage.started == [other]
        job = jobs.get(job_id)
        assert (state_name(job.state), job.lost_attempts) == ("paused", 0)
        assert job.reason.startswith("set aside: the service ended 3 times in a row while this job ran")
        assert f"nabla job resume {job_id}" in job.reason
        assert stage.sample("nablad_jobs_set_aside_total") == 1
        stage.attempts[other].succeed()
        assert stage.controller.commands.resume(job_id).lost_with_service == 0
        await stage.wait_started(2)
        assert stage.started == [other, job_id]


async def test_losses_after_the_start_are_not_taken_for_ends_of_the_service(
    jobs: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that was taken over is one like the others."""
    job_id = await _crash_while_it_runs(jobs)
    move = jobs.move

    def refuse_losses(*arguments: Any, **changes: Any) -> jobs_pb.Job:
        if "retry_time" in changes:
            raise DatabaseRowError("the service's database is damaged")
        return move(*arguments, **changes)

    monkeypatch.setattr(jobs, "move", refuse_losses)

    async with _play(jobs, 1, after_crash=True) as stage:
        for count in range(1, 5):
            await stage.wait_started(count)
            stage.attempts[job_id].lose()
        await stage.wait_started(5)
        assert jobs.get(job_id).lost_with_service == 1


async def test_ends_that_were_ordered_do_not_set_a_job_aside(jobs: JobStore) -> None:
    """Not those that were cut off either; they do not make the others forgotten."""
    job_id = await _crash_while_it_runs(jobs)
    await _crash_while_it_runs(jobs, job_id)
    for _ in range(5):
        await _crash_while_it_runs(jobs, job_id, told_to_end=True)
    assert (state_name(jobs.get(job_id).state), jobs.get(job_id).lost_with_service) == ("running", 1)


async def test_a_job_that_the_service_can_live_with_is_not_set_aside(jobs: JobStore) -> None:
    """A checkpoint after a long time makes the ends before forgotten, one after a short time does not."""
    job_id = await _crash_while_it_runs(jobs)
    for _ in range(3):
        await _crash_while_it_runs(jobs, job_id)
        await _crash_while_it_runs(jobs, job_id)
        jobs.reset_lost_attempts(job_id)
        assert jobs.get(job_id).lost_with_service == 2
        jobs.reset_lost_attempts(job_id, proven=True)
        assert jobs.get(job_id).lost_with_service == 0


async def test_jobs_that_waited_have_nothing_to_do_with_a_crash(jobs: JobStore) -> None:
    """Only those with processes are counted."""
    job_id = await _crash_while_it_runs(jobs)
    waiting = jobs.create(jobs.get(job_id).spec, "").job_id
    paused = jobs.create(jobs.get(job_id).spec, "").job_id
    jobs.move(paused, PAUSED, "test")
    for _ in range(2):
        await _crash_while_it_runs(jobs, job_id)
    assert [jobs.get(each).lost_with_service for each in (job_id, waiting, paused)] == [2, 0, 0]


async def test_a_service_that_goes_away_writes_down_where_its_jobs_are(jobs: JobStore) -> None:
    """They are queued for the next start, and nothing else is started."""
    async with _play(jobs, 1) as stage:
        running, waiting = stage.submit(), stage.submit()
        await stage.wait_started(1)
        stage.attempts[running].checkpoints.append(jobs_pb.Checkpoint(step=3))
        await stage.controller.drain()
        assert jobs.get(running).reason == "the service goes away; it goes on from step 3"
        assert [job.job_id for job in jobs.jobs_in_states([QUEUED])] == [running, waiting]
        assert stage.started == [running]


async def test_a_service_that_ends_without_that_leaves_its_jobs_for_the_next_start(jobs: JobStore) -> None:
    """Stopping ends the processes but no job."""
    submitted: list[str] = []

    async with _play(jobs, 1) as stage:
        submitted.append(stage.submit())
        await stage.wait_started(1)
    assert jobs.get(submitted[0]).state not in ENDED
