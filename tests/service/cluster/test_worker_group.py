"""The crew of a fleet: who is hired, who has left, who is dismissed."""

import asyncio
from collections.abc import Awaitable, Callable

from service.cluster.errors import ProcessError
from service.cluster.worker_group import WorkerGroup


class FakeWorker:
    """Works until the test ends it."""

    def __init__(self) -> None:
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.dismissed = asyncio.Event()

    async def run(self) -> None:
        await self.end

    async def dismiss(self) -> None:
        self.dismissed.set()


class Stage:
    """A crew, and the CPUs that there are for it."""

    def __init__(self, workers: int, room: int = 0, patience_seconds: float = 60) -> None:
        self.workers = [FakeWorker() for _ in range(workers)]
        self.room = room
        self.hiring: Callable[[], Awaitable[None]] | None = None
        self.crew = WorkerGroup(self._hire, look_seconds=0, patience_seconds=patience_seconds)
        self.crew.begin(self.workers, workers)

    async def _hire(self) -> FakeWorker | None:
        if self.hiring:
            await self.hiring()
        if self.room == 0:
            return None
        self.room -= 1
        self.workers.append(FakeWorker())
        return self.workers[-1]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 (there is no event)
                await asyncio.sleep(0)

    async def leave(self, number: int) -> None:
        self.workers[number].end.set_result(None)
        await self.workers[number].dismissed.wait()


async def _looks(count: int = 200) -> None:
    """Turns of the loop, in which the crew looks for CPUs many times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_more_workers_are_hired_as_there_are_cpus() -> None:
    """What is wanted and cannot be had now is had later."""
    stage = Stage(1, room=1)
    stage.crew.want(3)
    await stage.until(lambda: stage.crew.size == 2)
    stage.room = 5
    await stage.until(lambda: stage.crew.size == 3)
    await _looks()
    assert stage.room == 4
    await stage.crew.close()


async def test_a_hire_that_is_not_wanted_any_more_does_not_come() -> None:
    """The number drops while CPUs are looked for, and while they are taken."""
    stage = Stage(1)
    stage.crew.want(3)
    stage.crew.want(1)
    stage.room = 2
    await _looks()
    assert stage.room == 2
    asked, go = asyncio.Event(), asyncio.Event()

    async def hiring() -> None:
        asked.set()
        await go.wait()

    stage.hiring = hiring
    stage.crew.want(2)
    await asked.wait()
    stage.crew.want(1)
    go.set()
    await stage.until(lambda: len(stage.workers) == 2)
    await stage.workers[1].dismissed.wait()
    assert stage.crew.size == 1
    await stage.crew.close()


async def test_one_too_many_that_left_is_dismissed_and_not_replaced() -> None:
    """Its CPUs are free for others."""
    stage = Stage(3, room=5)
    stage.crew.want(2)
    await stage.leave(2)
    await _looks()
    assert (stage.crew.size, stage.room) == (2, 5)
    await stage.crew.close()


async def test_after_the_training_nobody_is_hired() -> None:
    """All leave though none is too many; also when more are wanted than there were."""
    stage = Stage(2)
    stage.crew.want(3)
    await stage.leave(0)
    stage.room = 5
    await stage.leave(1)
    await _looks()
    assert (stage.crew.size, stage.room) == (0, 5)
    assert not stage.crew.failure.done()
    await stage.crew.close()


async def test_a_number_that_drops_and_rises_again_is_reached() -> None:
    """The one who was let go in between is replaced."""
    stage = Stage(3, room=5)
    stage.crew.want(2)
    stage.crew.want(3)
    await stage.leave(2)
    await stage.until(lambda: stage.crew.size == 3)
    assert stage.room == 4
    await stage.crew.close()


async def test_who_is_too_many_and_stays_is_killed_the_newest_first() -> None:
    """And its end counts as no failure."""
    stage = Stage(3, patience_seconds=0)
    stage.crew.want(1)
    await stage.workers[2].dismissed.wait()
    await stage.workers[1].dismissed.wait()
    stage.workers[2].end.set_exception(ProcessError("killed", None, ""))
    await _looks()
    assert not stage.crew.failure.done()
    assert not stage.workers[0].dismissed.is_set()
    await stage.crew.close()


async def test_a_lost_worker_is_told_and_not_replaced() -> None:
    """The first one."""
    stage = Stage(2, room=5)
    first = ProcessError("first", None, "")
    stage.workers[1].end.set_exception(first)
    assert await stage.crew.failure is first
    stage.workers[0].end.set_exception(ProcessError("second", None, ""))
    await _looks()
    assert stage.room == 5
    await stage.crew.close()


async def test_closing_dismisses_everybody() -> None:
    """Also who is being hired at that moment."""
    stage = Stage(2, room=1)
    asked, go = asyncio.Event(), asyncio.Event()

    async def hiring() -> None:
        asked.set()
        await go.wait()

    stage.hiring = hiring
    stage.crew.want(3)
    await asked.wait()
    closing = asyncio.create_task(stage.crew.close())
    await _looks(5)
    assert not closing.done()
    go.set()
    await closing
    assert len(stage.workers) == 3
    assert all(worker.dismissed.is_set() for worker in stage.workers)


async def test_who_left_before_the_crew_was_told_is_no_end_of_the_training() -> None:
    """The parameter server lets workers go at once; the number that it was told may come here a moment later."""
    stage = Stage(3)
    await stage.leave(2)
    stage.crew.want(2)
    stage.crew.want(4)
    stage.room = 2
    await stage.until(lambda: stage.crew.size == 4)
    await stage.crew.close()
