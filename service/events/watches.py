"""Watches of jobs: ordered, without gaps, resumable from any event, and cheap however many there are."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from weakref import WeakValueDictionary

from nablad.v1 import jobs_pb2 as jobs_pb
from service.errors import Reason, ServiceError
from service.events.live_status import LiveStatus
from service.stores.job_states import ENDED, QUEUED, State
from service.stores.jobs import JobStore
from workers.runtime.concurrency import wait_for_event

__all__ = ["Pace", "Watches"]

# The largest number that the database knows.
_LAST_EVENT = (1 << 63) - 1
# The last events of a job that are kept while somebody watches it.
_CACHED_EVENTS = 1000
# A message stays so small that those who never read theirs hold next to nothing.
_MESSAGE_EVENTS = 250
_MESSAGE_BYTES = 64 << 10
# A message costs service and watcher some 0.4 ms of a CPU, for which a training that has all CPUs stands still: when
# one worker waits, so do the others. Fifty together cost a third less than five by five.
_ROUND_SECONDS = 0.1
_MESSAGES_PER_ROUND = 5
_GATHERED_ROUNDS = 10
# The last message comes but once, so that more of them may come at a time; not so many that other calls wait long.
_LAST_MESSAGES_PER_ROUND = 50


class Pace:
    """Deals out turns to speak, so many in each round.

    Turns are dealt in the order in which they are asked for, but near ones may overtake those that are gathered: of n
    who ask again and again, each has every n-th.
    """

    def __init__(self, clock: Callable[[], float], round_seconds: float, turns: int, gathered_rounds: int = 1) -> None:
        """Nobody has asked yet.

        Args:
            clock: Gives monotonic seconds.
            round_seconds: Of each round.
            turns: In each round.
            gathered_rounds: So many rounds away or more, turns come together with the last of so many rounds.
        """
        self._clock = clock
        self._round_seconds = round_seconds
        self._turns = turns
        self._gathered_rounds = gathered_rounds
        self._round = 0
        self._taken = 0

    def turn(self) -> float:
        """Takes a turn: seconds until it comes."""
        now = self._clock()
        if (present := int(now // self._round_seconds)) > self._round:
            self._round, self._taken = present, 0
        if self._taken == self._turns:
            self._round, self._taken = self._round + 1, 0
        self._taken += 1
        far = self._round - present >= self._gathered_rounds
        round_ = self._round + (-self._round % self._gathered_rounds if far else 0)
        return max(round_ * self._round_seconds - now, 0.0)

    def give_back(self) -> None:
        """One who had a turn did not wait for it: the next one that is dealt comes earlier for it."""
        self._taken -= 1
        if self._taken < 0:
            self._round, self._taken = self._round - 1, self._turns - 1


@dataclass
class _Watcher:
    """How much of a job somebody has heard.

    Attributes:
        coming: Number of the next event.
        told: The last sample of where the job stands.
        due: When the next message may be sent, in seconds of the clock.
    """

    coming: int
    told: bytes = b""
    due: float = 0.0


class Watches:
    """All watches of the service. They share what they tell and how often they may speak; none waits for another.

    Attributes:
        watchers: How many watch.
    """

    def __init__(self, jobs: JobStore, live: LiveStatus, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._jobs = jobs
        self._live = live
        self._clock = clock
        self.watchers = 0
        self._pace = Pace(clock, _ROUND_SECONDS, _MESSAGES_PER_ROUND, _GATHERED_ROUNDS)
        self._last_pace = Pace(clock, _ROUND_SECONDS, _LAST_MESSAGES_PER_ROUND)
        self._going_away = False
        # A feed is here as long as somebody watches.
        self._feeds: WeakValueDictionary[str, _Feed] = WeakValueDictionary()

    async def watch(self, job_id: str, from_event: int) -> AsyncIterator[bytes]:
        """The events of a job from a number on, until it has ended and all is told.

        In between comes its newest progress, or why it waits.

        Returns:
            Serialised WatchJobResponses.

        Raises:
            ServiceError: NOT_FOUND, also when the job is deleted meanwhile; GOING_AWAY, with the event to resume from.
        """
        feed = self._feed(job_id)
        watcher = _Watcher(min(max(from_event, 1), _LAST_EVENT))
        self.watchers += 1
        try:
            while await self._await_news(feed, watcher):
                yield feed.tell(watcher)
                # Who has heard everything waits for what else happens in a round; who is behind, only for its turn.
                watcher.due = self._clock() + (0 if feed.is_behind(watcher) else _ROUND_SECONDS)
        finally:
            self.watchers -= 1

    def go_away(self) -> None:
        """Ends the watches: the service is shutting down."""
        self._going_away = True
        self._live.notify_all()

    def _feed(self, job_id: str) -> "_Feed":
        if (feed := self._feeds.get(job_id)) is None:
            feed = self._feeds[job_id] = _Feed(job_id, self._jobs, self._live)
        return feed

    async def _await_news(self, feed: "_Feed", watcher: _Watcher) -> bool:
        """Waits until the watcher may be told something; false when there is nothing more to come."""
        while True:
            self._require_staying(feed, watcher)
            feed.refresh()
            if feed.has_news(watcher):
                await self._await_turn(feed, watcher)
                self._require_staying(feed, watcher)
                feed.refresh()
                if feed.has_news(watcher):  # a sample may have been taken back
                    return True
            elif feed.ended:
                return False
            else:
                await feed.changed()

    async def _await_turn(self, feed: "_Feed", watcher: _Watcher) -> None:
        """Waits no longer than until the service ends; who waits when the job ends has another turn, an early one."""
        if not feed.is_last_message(watcher):
            await self._wait(feed, self._pace, watcher.due)
            feed.refresh()
        if feed.is_last_message(watcher):
            await self._wait(feed, self._last_pace)

    async def _wait(self, feed: "_Feed", pace: Pace, due: float = 0.0) -> None:
        """For a turn, and until something is due; ends early with the job or the service."""
        now = self._clock()
        until = max(now + pace.turn(), due)
        try:
            if until > now:
                await wait_for_event(self._live.next_end(feed.job_id), until - now)
        finally:
            if self._clock() < until:
                pace.give_back()

    def _require_staying(self, feed: "_Feed", watcher: _Watcher) -> None:
        if self._going_away:
            raise ServiceError(
                Reason.GOING_AWAY,
                f"the service is shutting down: resume from event {watcher.coming} when it is back",
                job_id=feed.job_id,
                from_event=str(watcher.coming),
            )


class _Feed:
    """What there is to tell of one job, read and serialised once for all of its watchers.

    Messages of protobuf are put together by joining their bytes.

    Attributes:
        job_id: The job's.
        ended: Whether nothing more is to come.
    """

    def __init__(self, job_id: str, jobs: JobStore, live: LiveStatus) -> None:
        """Reads the job's last events.

        Raises:
            ServiceError: NOT_FOUND.
        """
        self.job_id = job_id
        self.ended = False
        self._jobs = jobs
        self._live = live
        self._sample = b""
        self._cached: deque[bytes] = deque(maxlen=_CACHED_EVENTS)
        self._last = max(jobs.last_event(job_id) - _CACHED_EVENTS, 0)
        self._look()

    def refresh(self) -> None:
        """Looks at the job again if anything happened since the last look.

        Raises:
            ServiceError: NOT_FOUND.
        """
        if self._change.is_set():
            self._look()

    async def changed(self) -> None:
        """Waits until anything has happened since the last look."""
        await self._change.wait()

    def is_behind(self, watcher: _Watcher) -> bool:
        """Whether there are events that the watcher has not heard of."""
        return watcher.coming <= self._last

    def is_last_message(self, watcher: _Watcher) -> bool:
        """Whether nothing is to come after the next message."""
        return self.ended and self._last - watcher.coming < _MESSAGE_EVENTS

    def has_news(self, watcher: _Watcher) -> bool:
        """Whether there is anything that the watcher has not heard of."""
        return self.is_behind(watcher) or bool(self._new_sample(watcher))

    def tell(self, watcher: _Watcher) -> bytes:
        """The next message for the watcher, who then has heard it. A sample belongs after the last event."""
        events = self._events(watcher.coming) if self.is_behind(watcher) else []
        watcher.coming += len(events)
        sample = b"" if self.is_behind(watcher) else self._new_sample(watcher)
        watcher.told = sample or watcher.told
        return b"".join([*events, sample])

    def _new_sample(self, watcher: _Watcher) -> bytes:
        return b"" if self._sample == watcher.told else self._sample

    def _look(self) -> None:
        # The notification is kept only after everything was read: what could not be read now is read at the next look.
        change = self._live.next_change(self.job_id)
        state = self._jobs.get(self.job_id).state
        self.ended = state in ENDED
        while events := self._jobs.events(self.job_id, self._last + 1, _CACHED_EVENTS):
            self._cached.extend(map(_serialised, events))
            self._last = events[-1].number
        self._sample = b"" if self.ended else self._where_it_stands(state).SerializeToString()
        self._change = change

    def _where_it_stands(self, state: State) -> jobs_pb.WatchJobResponse:
        """Its progress while it has processes, why it waits while it is queued; as far as either is known."""
        if state == QUEUED and (reason := self._live.waiting_reason(self.job_id)):
            return jobs_pb.WatchJobResponse(waiting=jobs_pb.Waiting(reason=reason))
        return jobs_pb.WatchJobResponse(progress=self._live.progress(self.job_id))

    def _events(self, coming: int) -> list[bytes]:
        """As many as go into one message, from one that there is; older ones than those kept are read again."""
        first = self._last + 1 - len(self._cached)
        if coming < first:
            return _fitting(map(_serialised, self._jobs.events(self.job_id, coming, _MESSAGE_EVENTS)))
        start = coming - first
        return _fitting(islice(self._cached, start, start + _MESSAGE_EVENTS))


def _serialised(event: jobs_pb.Event) -> bytes:
    """A message with this event alone."""
    return jobs_pb.WatchJobResponse(events=[event]).SerializeToString()


def _fitting(events: Iterable[bytes]) -> list[bytes]:
    """The first events, as many as go into one message; at least one."""
    fitting: list[bytes] = []
    size = 0
    for event in events:
        size += len(event)
        if fitting and size > _MESSAGE_BYTES:
            break
        fitting.append(event)
    return fitting
