"""The controller: order of the queue, ends of attempts, cancelling; on a cluster of the test's making."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from service.controller import Controller, FleetLike
from service.errors import ServiceError
from service.job_states import QUEUED, RUNNING, STARTING, state_name
from service.live import LiveJobs
from service.outcomes import AttemptFailed, AttemptLost
from service.stores.jobs import JobStore


class FakeCluster:
    """CPUs without processes."""

    def __init__(self, cpus: int) -> None:
        self.cpus = cpus
        self.free = cpus
        self._changed = asyncio.Condition()

    async def node_cpus(self) -> list[int]:
        return [self.cpus]

    @asynccontextmanager
    async def reserve(self, workers: int, cpus_per_worker: int) -> AsyncIterator[FleetLike]:
        needed = workers * cpus_per_worker
        async with self._changed:
            await self._changed.wait_for(lambda: self.free >= needed)
            self.free -= needed
        try:
            yield None  # type: ignore[misc] (attempts of these tests use no fleet)
        finally:
            self.free += needed
            async with self._changed:
                self._changed.notify_all()


class Attempts:
    """Attempts that run until the test ends them."""

    def __init__(self, jobs: JobStore) -> None:
        self._jobs = jobs
        self.started: list[str] = []
        self.last_word: Callable[[], None] = lambda: None
        self.ends: dict[str, asyncio.Future[str]] = {}
        self._news = asyncio.Condition()

    async def __call__(self, job: jobs_pb.Job, _fleet: FleetLike) -> str:
        self._jobs.move(job.job_id, RUNNING, "test")
        self.ends[job.job_id] = asyncio.get_running_loop().create_future()
        self.started.append(job.job_id)
        async with self._news:
            self._news.notify_all()
        try:
            return await self.ends[job.job_id]
        finally:
            self.last_word()

    async def wait_started(self, count: int) -> None:
        async with self._news, asyncio.timeout(10):
            await self._news.wait_for(lambda: len(self.started) >= count)


class Stage:
    """A running controller with what surrounds it."""

    def __init__(self, jobs: JobStore, cpus: int) -> None:
        self.jobs = jobs
        self.cluster = FakeCluster(cpus)
        self.attempts = Attempts(jobs)
        self.live = LiveJobs(lambda: 0.0)
        self.controller = Controller(jobs, self.live, self.cluster, self.attempts)

    def submit(self, workers: int) -> str:
        spec = spec_pb.JobSpec(name="a", distribution=spec_pb.DistributionSpec(workers=workers, cpus_per_worker=1))
        job_id = self.jobs.create(spec, "").job_id
        self.controller.wake()
        return job_id

    def state(self, job_id: str) -> str:
        return state_name(self.jobs.get(job_id).state)

    async def wait_for(self, job_id: str, state: str) -> None:
        async with asyncio.timeout(10):
            while self.state(job_id) != state:
                await self.live.bell(job_id).wait()

    async def wait_for_reason(self, job_id: str, reason: str) -> None:
        async with asyncio.timeout(10):
            while self.jobs.get(job_id).reason != reason:
                await self.live.bell(job_id).wait()


def _play(jobs: JobStore, cpus: int, scene: Callable[[Stage], Awaitable[None]]) -> None:
    async def run() -> None:
        stage = Stage(jobs, cpus)
        task = asyncio.create_task(stage.controller.run())
        try:
            await scene(stage)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        assert stage.cluster.free == stage.cluster.cpus

    asyncio.run(run())


def test_jobs_start_in_the_order_of_submission_as_cpus_become_free(jobs: JobStore) -> None:
    """A small job does not pass an older, bigger one that waits for CPUs."""

    async def scene(stage: Stage) -> None:
        first, big, small = stage.submit(3), stage.submit(4), stage.submit(1)
        await stage.attempts.wait_started(1)
        assert stage.attempts.started == [first]
        await stage.wait_for_reason(big, "waits for 4 workers with 1 CPU each")
        stage.attempts.ends[first].set_result("m")
        await stage.attempts.wait_started(2)
        stage.attempts.ends[big].set_result("m")
        await stage.attempts.wait_started(3)
        assert stage.attempts.started == [first, big, small]

    _play(jobs, 4, scene)


def test_a_job_that_no_cluster_like_this_can_hold_is_passed_over_and_told_so(jobs: JobStore) -> None:
    """It waits for nodes, while later jobs run."""

    async def scene(stage: Stage) -> None:
        giant, small = stage.submit(9), stage.submit(1)
        await stage.attempts.wait_started(1)
        assert stage.attempts.started == [small]
        assert stage.state(giant) == "queued"
        assert "needs 9 workers with 1 CPU each, but the cluster has room for 2" in stage.jobs.get(giant).reason
        stage.cluster.cpus += 8
        stage.cluster.free += 8
        stage.controller.wake()
        stage.attempts.ends[small].set_result("m")
        await stage.attempts.wait_started(2)
        assert stage.attempts.started == [small, giant]

    _play(jobs, 2, scene)


def test_an_attempt_that_ends_well_makes_a_model(jobs: JobStore) -> None:
    """The job succeeds and names the model."""

    async def scene(stage: Stage) -> None:
        job_id = stage.submit(1)
        await stage.attempts.wait_started(1)
        stage.attempts.ends[job_id].set_result("the-model")
        await stage.wait_for(job_id, "succeeded")
        assert stage.jobs.get(job_id).model_id == "the-model"

    _play(jobs, 1, scene)


def test_a_failed_attempt_fails_the_job_with_its_sentence(jobs: JobStore) -> None:
    """What another attempt would only repeat is not tried again."""

    async def scene(stage: Stage) -> None:
        job_id = stage.submit(1)
        await stage.attempts.wait_started(1)
        stage.attempts.ends[job_id].set_exception(AttemptFailed("it diverged"))
        await stage.wait_for(job_id, "failed")
        assert stage.jobs.get(job_id).reason == "it diverged"

    _play(jobs, 1, scene)


def test_a_lost_attempt_is_followed_by_another_three_in_all(jobs: JobStore) -> None:
    """After the third loss the job fails, and says why."""

    async def scene(stage: Stage) -> None:
        job_id = stage.submit(1)
        for attempt in (1, 2, 3):
            await stage.attempts.wait_started(attempt)
            stage.attempts.ends[job_id].set_exception(AttemptLost("the parameter server was lost"))
        await stage.wait_for(job_id, "failed")
        job = stage.jobs.get(job_id)
        assert (job.attempt, job.reason) == (3, "the parameter server was lost; given up after 3 lost attempts")

    _play(jobs, 1, scene)


def test_an_error_of_the_service_fails_only_that_job(jobs: JobStore) -> None:
    """The next job runs."""

    async def scene(stage: Stage) -> None:
        broken, sound = stage.submit(1), stage.submit(1)
        await stage.attempts.wait_started(1)
        stage.attempts.ends[broken].set_exception(RuntimeError("a bug"))
        await stage.attempts.wait_started(2)
        assert stage.state(broken) == "failed"
        assert stage.state(sound) == "running"

    _play(jobs, 1, scene)


@pytest.mark.parametrize("running", [True, False])
def test_cancelling_frees_the_cpus(jobs: JobStore, running: bool) -> None:
    """Cancelling a running job lets the next one start; a waiting one is just taken out."""

    async def scene(stage: Stage) -> None:
        first, second, third = (stage.submit(1) for _ in range(3))
        await stage.attempts.wait_started(1)
        await stage.controller.cancel(first if running else second)
        if not running:
            stage.attempts.ends[first].set_result("m")
        await stage.attempts.wait_started(2)
        assert stage.attempts.started == [first, second if running else third]
        with pytest.raises(ServiceError, match="has ended already"):
            await stage.controller.cancel(first if running else second)

    _play(jobs, 1, scene)


def test_what_could_not_be_written_is_tried_again(jobs: JobStore) -> None:
    """A disk that was full for a moment costs an attempt, not the job."""

    async def scene(stage: Stage) -> None:
        job_id = stage.submit(1)
        await stage.attempts.wait_started(1)
        stage.attempts.ends[job_id].set_exception(OSError(28, "No space left on device"))
        await stage.attempts.wait_started(2)
        messages = [event.message for event in jobs.events(job_id, 1)]
        assert any(
            "could not write: [Errno 28] No space left on device; attempt 2 follows" in each for each in messages
        )

    _play(jobs, 1, scene)


def test_only_one_of_two_cancels_at_once_succeeds(jobs: JobStore) -> None:
    """The other one is told that the job has ended."""

    async def scene(stage: Stage) -> None:
        job_id = stage.submit(1)
        await stage.attempts.wait_started(1)
        cancels = [stage.controller.cancel(job_id) for _ in range(3)]
        outcomes = await asyncio.gather(*cancels, return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Job", "ServiceError", "ServiceError"]

    _play(jobs, 1, scene)


def test_a_cancelled_job_is_not_written_to_any_more(jobs: JobStore) -> None:
    """What its attempt still does while it is being stopped comes before the last event."""

    async def scene(stage: Stage) -> None:
        job_id = stage.submit(1)
        await stage.attempts.wait_started(1)
        stage.attempts.last_word = lambda: jobs.worker_event(job_id, "a last word", joined=False)
        await stage.controller.cancel(job_id)
        assert [event.message for event in jobs.events(job_id, 1)][-2:] == [
            "a last word",
            "cancelled: cancelled by a client",
        ]

    _play(jobs, 1, scene)


def test_jobs_that_were_launched_when_the_service_ended_are_run_again(jobs: JobStore) -> None:
    """A new daemon queues them anew: their processes are gone."""
    spec = spec_pb.JobSpec(name="a", distribution=spec_pb.DistributionSpec(workers=1, cpus_per_worker=1))
    old = jobs.create(spec, "").job_id
    jobs.move(old, STARTING, "by a daemon that is gone")

    async def scene(stage: Stage) -> None:
        await stage.attempts.wait_started(1)
        assert stage.attempts.started == [old]
        assert stage.jobs.get(old).attempt == 2

    _play(jobs, 1, scene)


def test_a_stopping_service_leaves_its_jobs_for_the_next_start(jobs: JobStore) -> None:
    """Stopping ends the fleets but no job."""
    submitted: list[str] = []

    async def scene(stage: Stage) -> None:
        submitted.append(stage.submit(1))
        await stage.attempts.wait_started(1)

    _play(jobs, 1, scene)
    assert jobs.get(submitted[0]).state == RUNNING
    assert [job.job_id for job in jobs.in_states([QUEUED, RUNNING])] == submitted
