"""The worker group: which workers are started, which have left, which are stopped."""

import asyncio
from collections.abc import Awaitable, Callable

from service.cluster.errors import ProcessError
from service.cluster.worker_group import WorkerGroup


class FakeWorker:
    """Works until the test ends it."""

    def __init__(self) -> None:
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.stopped = asyncio.Event()

    async def run(self) -> None:
        await self.end

    async def stop(self) -> None:
        self.stopped.set()


class Stage:
    """Worker group, and a number of workers for which there are CPUs."""

    def __init__(self, workers: int, room: int = 0, release_seconds: float = 60) -> None:
        self.workers = [FakeWorker() for _ in range(workers)]
        self.room = room
        self.starting: Callable[[], Awaitable[None]] | None = None
        self.group = WorkerGroup(self._start_worker, retry_seconds=0, release_seconds=release_seconds)
        self.group.start(self.workers, workers)

    async def _start_worker(self) -> FakeWorker | None:
        if self.starting:
            await self.starting()
        if self.room == 0:
            return None
        self.room -= 1
        self.workers.append(FakeWorker())
        return self.workers[-1]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110 (there is no event)
                await asyncio.sleep(0)

    async def leave(self, number: int) -> None:
        self.workers[number].end.set_result(None)
        await self.workers[number].stopped.wait()


async def _turns(count: int = 200) -> None:
    """Turns of the event loop, in which the group tries to start workers many times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_more_workers_are_started_as_there_are_cpus() -> None:
    """A missing worker is started as soon as there are CPUs for it."""
    stage = Stage(1, room=1)
    stage.group.scale(3)
    await stage.until(lambda: stage.group.size == 2)
    stage.room = 5
    await stage.until(lambda: stage.group.size == 3)
    await _turns()
    assert stage.room == 4
    await stage.group.close()


async def test_a_worker_that_is_not_wanted_any_more_is_not_added() -> None:
    """The number drops while there are no CPUs, and while the worker is being started."""
    stage = Stage(1)
    stage.group.scale(3)
    stage.group.scale(1)
    stage.room = 2
    await _turns()
    assert stage.room == 2
    requested, go = asyncio.Event(), asyncio.Event()

    async def starting() -> None:
        requested.set()
        await go.wait()

    stage.starting = starting
    stage.group.scale(2)
    await requested.wait()
    stage.group.scale(1)
    go.set()
    await stage.until(lambda: len(stage.workers) == 2)
    await stage.workers[1].stopped.wait()
    assert stage.group.size == 1
    await stage.group.close()


async def test_a_surplus_worker_that_left_is_stopped_and_not_replaced() -> None:
    """Its CPUs are free for other jobs."""
    stage = Stage(3, room=5)
    stage.group.scale(2)
    await stage.leave(2)
    await _turns()
    assert (stage.group.size, stage.room) == (2, 5)
    await stage.group.close()


async def test_after_the_training_no_worker_is_started() -> None:
    """The training is over if a worker leaves that is no surplus, also while more are wanted."""
    stage = Stage(2)
    stage.group.scale(3)
    await stage.leave(0)
    stage.room = 5
    await stage.leave(1)
    await _turns()
    assert (stage.group.size, stage.room) == (0, 5)
    assert not stage.group.failure.done()
    await stage.group.close()


async def test_a_number_that_drops_and_rises_again_is_reached() -> None:
    """The worker that the parameter server released in between is replaced."""
    stage = Stage(3, room=5)
    stage.group.scale(2)
    stage.group.scale(3)
    await stage.leave(2)
    await stage.until(lambda: stage.group.size == 3)
    assert stage.room == 4
    await stage.group.close()


async def test_surplus_workers_that_stay_are_killed_the_newest_first() -> None:
    """Their ends do not count as failures."""
    stage = Stage(3, release_seconds=0)
    stage.group.scale(1)
    await stage.workers[2].stopped.wait()
    await stage.workers[1].stopped.wait()
    stage.workers[2].end.set_exception(ProcessError("killed", None, ""))
    await _turns()
    assert not stage.group.failure.done()
    assert not stage.workers[0].stopped.is_set()
    await stage.group.close()


async def test_a_lost_worker_is_reported_and_not_replaced() -> None:
    """The first loss is the one that is reported."""
    stage = Stage(2, room=5)
    first = ProcessError("first", None, "")
    stage.workers[1].end.set_exception(first)
    assert await stage.group.failure is first
    stage.workers[0].end.set_exception(ProcessError("second", None, ""))
    await _turns()
    assert stage.room == 5
    await stage.group.close()


async def test_closing_stops_all_workers() -> None:
    """A worker that is being started at that moment is stopped too."""
    stage = Stage(2, room=1)
    requested, go = asyncio.Event(), asyncio.Event()

    async def starting() -> None:
        requested.set()
        await go.wait()

    stage.starting = starting
    stage.group.scale(3)
    await requested.wait()
    closing = asyncio.create_task(stage.group.close())
    await _turns(5)
    assert not closing.done()
    go.set()
    await closing
    assert len(stage.workers) == 3
    assert all(worker.stopped.is_set() for worker in stage.workers)


async def test_a_worker_that_left_before_the_group_was_scaled_does_not_end_the_training() -> None:
    """The parameter server releases workers at once; the group gets the same number a moment later."""
    stage = Stage(3)
    await stage.leave(2)
    stage.group.scale(2)
    stage.group.scale(4)
    stage.room = 2
    await stage.until(lambda: stage.group.size == 4)
    await stage.group.close()
