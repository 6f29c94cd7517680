"""Watches: ordered, without gaps, resumable, and sparing."""

import asyncio
import gc
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from itertools import chain

import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.errors import Reason, ServiceError
from service.events.job_events import JobDeleted, Notice, ProgressReported, StateChanged, WaitingExplained
from service.events.live_status import LiveStatus
from service.events.watches import Watches
from service.stores.jobs import JobStore

# As many of a job's last events are kept in memory while somebody watches it.
_KEPT = 1000
# Longer than any test: only a clock that is put forward brings a message that waits for it.
INTERVAL_SECONDS = 1000.0

QUEUED, RUNNING, SUCCEEDED = jobs_pb.JOB_STATE_QUEUED, jobs_pb.JOB_STATE_RUNNING, jobs_pb.JOB_STATE_SUCCEEDED


class Shelf:
    """One job and its events in memory, as the store of jobs would have them; counts what is read.

    Attributes:
        reads: How often each event was read.
    """

    def __init__(self, job_id: str, live: LiveStatus) -> None:
        self.reads: Counter[int] = Counter()
        self._live = live
        self._job: jobs_pb.Job | None = jobs_pb.Job(job_id=job_id, state=RUNNING)
        self._events: list[jobs_pb.Event] = []

    def add(self, count: int = 1, text: str = "") -> None:
        first = len(self._events) + 1
        self._events += [jobs_pb.Event(number=number, message=text) for number in range(first, first + count)]
        self._live.receive(Notice("a", "test"))

    def end(self) -> None:
        self._job.state = SUCCEEDED
        self.add(text="succeeded")
        self._live.receive(StateChanged("a", self._job, jobs_pb.Job()))

    def queue(self) -> None:
        self._job.state = QUEUED
        self._live.receive(StateChanged("a", self._job, jobs_pb.Job()))

    def start(self) -> None:
        self._job.state = RUNNING

    def delete(self) -> None:
        self._job = None
        self._events = []
        self._live.receive(JobDeleted("a"))

    def get(self, job_id: str) -> jobs_pb.Job:
        if self._job is None or job_id != self._job.job_id:
            raise ServiceError(Reason.NOT_FOUND, f"there is no job {job_id!r}")
        return self._job

    def last_event(self, job_id: str) -> int:
        self.get(job_id)
        return len(self._events)

    def events(self, job_id: str, from_number: int, limit: int = 1000) -> list[jobs_pb.Event]:
        self.get(job_id)
        page = self._events[from_number - 1 : from_number - 1 + limit]
        self.reads.update(event.number for event in page)
        return page


class Scene:
    """A job, whoever watches it, and a clock that stands still until it is put forward."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self.live = LiveStatus(self.clock)
        self.job = Shelf("a", self.live)
        self.watches = Watches(self.job, self.live, self.clock, INTERVAL_SECONDS)

    def clock(self) -> float:
        return self._seconds

    def skip_interval(self, share: float = 1.0) -> None:
        """Puts the clock forward; after a whole interval, nobody who asks then has to wait."""
        self._seconds += share * INTERVAL_SECONDS

    def progress(self, step: int) -> None:
        self.live.receive(ProgressReported("a", jobs_pb.Progress(step=step), ps_pb.AttemptStatistics()))

    def watch(self, from_event: int) -> AsyncIterator[jobs_pb.WatchJobResponse]:
        return _watch(self.watches, "a", from_event)

    async def numbers(self, from_event: int = 1) -> list[int]:
        """Of all events that a watch gives until it ends."""
        return [event.number async for told in self.watch(from_event) for event in told.events]


async def _watch(watches: Watches, job_id: str, from_event: int) -> AsyncIterator[jobs_pb.WatchJobResponse]:
    """What a client makes of it."""
    async with aclosing(watches.watch(job_id, from_event)) as messages:
        async for message in messages:
            yield jobs_pb.WatchJobResponse.FromString(message)


@asynccontextmanager
async def _play() -> AsyncIterator[Scene]:
    # Without an end of its own: pytest's, which counts minutes, suffices, and does not come early on a busy machine.
    yield Scene()


async def _next(watch: AsyncIterator[jobs_pb.WatchJobResponse]) -> jobs_pb.WatchJobResponse:
    return await anext(watch)


def _numbers(*told: jobs_pb.WatchJobResponse) -> list[int]:
    return [event.number for response in told for event in response.events]


async def _still_waits(task: "asyncio.Task[object]") -> bool:
    """Whether a task has nothing to do, however often it is its turn."""
    for _ in range(20):
        await asyncio.sleep(0)
    return not task.done()


@pytest.mark.parametrize("from_event", [0, 1, 2, 700, 1500, 2501])
async def test_events_come_in_order_and_without_gaps_from_any_number_on(from_event: int) -> None:
    """Whether they are kept in memory or not; after the last event of a job that has ended, the watch ends."""
    async with _play() as scene:
        scene.job.add(2500)
        scene.job.end()
        assert await scene.numbers(from_event) == list(range(max(from_event, 1), 2502))


async def test_a_queued_job_tells_why_it_waits_each_time_that_changes() -> None:
    """After its events; what was told once is not told again, and a job that moves tells its progress again."""
    async with _play() as scene:
        scene.job.add()
        scene.job.queue()
        scene.live.receive(WaitingExplained("a", "waits for CPUs"))
        watch = scene.watch(1)
        first = await _next(watch)
        assert (_numbers(first), first.waiting.reason) == ([1], "waits for CPUs")
        coming = asyncio.create_task(_next(watch))
        scene.live.receive(WaitingExplained("a", "waits for CPUs"))
        scene.live.receive(Notice("a", "test"))
        assert await _still_waits(coming)
        scene.skip_interval()
        scene.live.receive(WaitingExplained("a", "waits for nodes"))
        told = await coming
        assert (told.waiting.reason, told.HasField("progress"), _numbers(told)) == ("waits for nodes", False, [])
        scene.skip_interval()
        scene.job.start()
        scene.progress(3)
        told = await _next(watch)
        assert (told.HasField("waiting"), told.progress.step) == (False, 3)


@pytest.mark.parametrize("from_event", [3, 10**18, 2**64 - 1])
async def test_beyond_the_end_of_a_job_that_has_ended_there_is_nothing(from_event: int) -> None:
    """Such a watch ends at once."""
    async with _play() as scene:
        scene.job.add()
        scene.job.end()
        assert await scene.numbers(from_event) == []


async def test_an_event_that_has_not_happened_yet_is_waited_for() -> None:
    """Earlier ones are passed over in silence."""
    async with _play() as scene:
        scene.job.add(2)
        task = asyncio.create_task(_next(scene.watch(5)))
        assert await _still_waits(task)
        scene.job.add(2)
        assert await _still_waits(task)
        scene.job.add(2)
        assert _numbers(await task) == [5, 6]


async def test_what_happened_meanwhile_comes_in_one_message() -> None:
    """Events that happened while the watcher was busy come in one message, with the newest progress only."""
    async with _play() as scene:
        scene.job.add()
        watch = scene.watch(1)
        await anext(watch)
        for step in range(1, 4):
            scene.progress(step)
            scene.job.add()
        scene.skip_interval()
        told = await anext(watch)
        assert (_numbers(told), told.progress.step) == ([2, 3, 4], 3)


async def test_progress_comes_after_the_last_event_and_once() -> None:
    """It says where the job stands after the events, and is not said again with the next ones."""
    async with _play() as scene:
        scene.progress(7)
        scene.job.add(260)
        watch = scene.watch(1)
        first, second = await anext(watch), await anext(watch)
        assert (first.HasField("progress"), second.progress.step) == (False, 7)
        scene.job.add()
        scene.skip_interval()
        assert not (await anext(watch)).HasField("progress")
        scene.progress(8)
        scene.skip_interval()
        assert (await anext(watch)) == jobs_pb.WatchJobResponse(progress=jobs_pb.Progress(step=8))


async def test_a_job_that_has_ended_makes_no_progress() -> None:
    """Its last figures are in its events."""
    async with _play() as scene:
        scene.progress(7)
        scene.job.end()
        assert [told.HasField("progress") async for told in scene.watch(1)] == [False]


async def test_events_are_read_once_for_all_watchers() -> None:
    """Whoever joins, and whenever: no event of a watched job is read twice."""
    async with _play() as scene:
        scene.job.add(400)
        early = [asyncio.create_task(scene.numbers(number)) for number in (1, 100, 300, 401)]
        for _ in range(3):
            await asyncio.sleep(0)
            scene.job.add(5)
        late = [asyncio.create_task(scene.numbers(number)) for number in (1, 405)]
        await asyncio.sleep(0)
        scene.job.end()
        heard = await asyncio.gather(*early, *late)
        assert [numbers[-1] for numbers in heard] == [416] * 6
        assert set(scene.job.reads.values()) == {1}


async def test_a_watcher_that_takes_nothing_costs_the_others_nothing() -> None:
    """The others hear everything to the end; when it goes on, so does it."""
    async with _play() as scene:
        scene.job.add()
        slow = scene.watch(1)
        first = await anext(slow)
        quick = asyncio.create_task(scene.numbers())
        await asyncio.sleep(0)
        scene.job.add(3000)
        scene.job.end()
        assert await quick == list(range(1, 3003))
        rest = [told async for told in slow]
        assert _numbers(first, *rest) == list(range(1, 3003))


async def test_whatever_happens_in_whatever_order_everybody_hears_all_of_it_in_order() -> None:
    """Watchers that join, dawdle and go while events and progress come: no gap, nothing twice."""
    generator = random.Random(4)

    async with _play() as scene:
        heard: list[tuple[int, AsyncIterator[jobs_pb.WatchJobResponse], list[int]]] = []
        total = 1
        scene.job.add()
        for _ in range(100):
            match generator.randrange(4):
                case 0:
                    count = generator.choice([1, 1, 1, 30, 600])
                    scene.job.add(count)
                    total += count
                case 1:
                    scene.progress(generator.randrange(100))
                case 2:
                    first = generator.randint(1, total)
                    heard.append((first, scene.watch(first), []))
                case 3 if heard:
                    first, watch, numbers = generator.choice(heard)
                    if first + len(numbers) <= total:
                        scene.skip_interval()
                        numbers += _numbers(await anext(watch))
        assert total > _KEPT
        scene.job.end()
        for first, watch, numbers in heard:
            whole = list(numbers)
            async for told in watch:
                whole += _numbers(told)
            assert whole == list(range(first, total + 2))


async def test_no_message_is_large() -> None:
    """Long sentences are spread over more messages; one that is too long for any still comes."""
    async with _play() as scene:
        scene.job.add(100, "x" * 5000)
        scene.job.add(1, "x" * 200_000)
        scene.job.end()
        told = [told async for told in scene.watch(1)]
        assert _numbers(*told) == list(range(1, 103))
        sizes = sorted(response.ByteSize() for response in told)
        assert sizes[-2] <= 65536 + 2000
        assert sizes[-1] >= 200_000


async def test_watches_that_ended_leave_nothing() -> None:
    """Neither those that were ended by the job nor those that nobody wanted any more."""
    async with _play() as scene:
        scene.job.add(10)
        left = scene.watch(1)
        await anext(left)
        waiting = asyncio.create_task(scene.numbers())
        await asyncio.sleep(0)
        assert _feeds() == 1
        await left.aclose()
        waiting.cancel()
        await asyncio.wait([waiting])
        del left, waiting
        gc.collect()
        assert _feeds() == 0
        scene.job.end()
        await scene.numbers()
        assert _feeds() == 0


def _feeds() -> int:
    return sum(type(thing).__name__ == "_Feed" for thing in gc.get_objects())


async def test_the_watches_of_a_deleted_job_end() -> None:
    """Whoever waits is told that there is no such job, and so is who asks later."""
    async with _play() as scene:
        scene.job.add()
        tasks = [asyncio.create_task(scene.numbers()) for _ in range(2)]
        assert await _still_waits(tasks[0])
        scene.job.delete()
        for task in [*tasks, asyncio.create_task(scene.numbers())]:
            with pytest.raises(ServiceError) as caught:
                await task
            assert caught.value.reason is Reason.NOT_FOUND


async def test_a_service_that_goes_away_says_where_to_resume() -> None:
    """Returns whether a watcher waits for an update or for the interval; no watch begins any more."""
    async with _play() as scene:
        scene.job.add(3)
        idle, eager = scene.watch(1), scene.watch(1)
        await anext(idle)
        await anext(eager)
        waits_for_news = asyncio.create_task(_next(idle))
        assert await _still_waits(waits_for_news)
        scene.job.add()
        waits_for_its_interval = asyncio.create_task(_next(eager))
        assert await _still_waits(waits_for_its_interval)
        scene.watches.go_away()
        begins = asyncio.create_task(_next(scene.watch(9)))
        for task, coming in ((waits_for_news, 4), (waits_for_its_interval, 4), (begins, 9)):
            with pytest.raises(ServiceError, match=f"resume from event {coming} when") as caught:
                await task
            assert caught.value.reason is Reason.GOING_AWAY
            assert caught.value.metadata == {"job_id": "a", "from_event": str(coming)}


async def test_a_failed_job_ends_a_watch_and_a_retried_one_goes_on(jobs: JobStore) -> None:
    """The watch that resumes after the failure hears of the next try, event by event."""
    async with _play() as scene:
        watches = Watches(jobs, scene.live, scene.clock, INTERVAL_SECONDS)
        job_id = jobs.create(spec_pb.JobSpec(name="a"), "").job_id

        def move(state: jobs_pb.JobState.ValueType) -> None:
            jobs.move(job_id, state, "so it is")
            scene.live.receive(Notice(job_id, "test"))

        move(jobs_pb.JOB_STATE_FAILED)
        assert _numbers(*[told async for told in _watch(watches, job_id, 1)]) == [1, 2]
        move(jobs_pb.JOB_STATE_QUEUED)
        rest = _watch(watches, job_id, 3)
        states = [event.state for event in (await anext(rest)).events]
        move(jobs_pb.JOB_STATE_CANCELLED)
        states += chain.from_iterable([[event.state for event in told.events] async for told in rest])
        assert states == [jobs_pb.JOB_STATE_QUEUED, jobs_pb.JOB_STATE_CANCELLED]


async def test_a_watcher_gets_one_message_in_an_interval() -> None:
    """What happens meanwhile waits, and comes as a whole when it is over; whoever comes hears it at once."""
    async with _play() as scene:
        scene.job.add()
        watch = scene.watch(1)
        await anext(watch)
        coming = asyncio.create_task(_next(watch))
        for _ in range(3):
            scene.job.add()
            assert await _still_waits(coming)
        coming.cancel()
        await asyncio.wait([coming])
        again = scene.watch(2)
        assert _numbers(await anext(again)) == [2, 3, 4]
        scene.job.add()
        scene.skip_interval()
        assert _numbers(await anext(again)) == [5]


async def test_intervals_begin_for_all_at_the_same_time() -> None:
    """Whenever in it they had their message."""
    async with _play() as scene:
        scene.job.add()
        early, late = scene.watch(1), scene.watch(1)
        await anext(early)
        scene.skip_interval(0.75)
        await anext(late)
        scene.job.add()
        scene.skip_interval(0.25)
        assert [_numbers(await anext(watch)) for watch in (early, late)] == [[2], [2]]


async def test_without_an_interval_nobody_waits() -> None:
    """Each event is told as soon as its watcher takes it."""
    async with _play() as scene:
        watches = Watches(scene.job, scene.live, scene.clock, 0.0)
        scene.job.add()
        watch = _watch(watches, "a", 1)
        for number in range(1, 6):
            assert _numbers(await anext(watch)) == [number]
            scene.job.add()


async def test_the_messages_of_others_take_nothing_from_a_watcher() -> None:
    """Whoever comes hears at once what there is, however many have just heard it."""
    async with _play() as scene:
        scene.job.add(3)
        for _ in range(200):
            assert _numbers(await anext(scene.watch(1))) == [1, 2, 3]


async def test_the_interval_ends_by_itself() -> None:
    """By a clock that goes on."""
    async with _play() as scene:
        loop = asyncio.get_running_loop()
        watches = Watches(scene.job, scene.live, loop.time, 0.001)
        scene.job.add()
        watch = _watch(watches, "a", 1)
        for number in range(1, 6):
            assert _numbers(await anext(watch)) == [number]
            scene.job.add()


async def test_the_past_comes_without_a_wait() -> None:
    """Of a job that goes on as of one that has ended: the interval begins when a watcher has heard everything."""
    async with _play() as scene:
        scene.job.add(2000)
        watch = scene.watch(1)
        told = [await anext(watch) for _ in range(8)]
        assert _numbers(*told) == list(range(1, 2001))
        scene.job.add()
        coming = asyncio.create_task(_next(watch))
        assert await _still_waits(coming)
        scene.job.end()
        assert _numbers(await coming) == [2001, 2002]


async def test_a_crowd_hears_of_the_end_at_once() -> None:
    """Returns whether a watcher waits for the interval or for an update."""
    async with _play() as scene:
        scene.job.add(3)
        crowd = [scene.watch(1) for _ in range(100)]
        for watch in crowd:
            await anext(watch)
        idle = [asyncio.create_task(_next(watch)) for watch in crowd[50:]]
        assert await _still_waits(idle[0])
        scene.job.add()
        eager = [asyncio.create_task(_next(watch)) for watch in crowd[:50]]
        assert await _still_waits(eager[0])
        scene.job.end()
        heard = await asyncio.gather(*eager, *idle)
        assert [_numbers(told) for told in heard] == [[4, 5]] * 100
