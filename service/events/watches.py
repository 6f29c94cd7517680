"""Watches of jobs: ordered, without gaps, resumable from any event, each event serialised once."""

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

__all__ = ["Watches"]

# The largest number that the database knows.
_LAST_EVENT = (1 << 63) - 1
# The last events of a job that are kept while somebody watches it.
_CACHED_EVENTS = 1000
# A message stays so small that those who never read theirs hold next to nothing.
_MESSAGE_EVENTS = 250
_MESSAGE_BYTES = 64 << 10


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
    """All watches of the service. Those of a job share what they tell; none waits for another.

    Attributes:
        watchers: How many watch.
    """

    def __init__(self, jobs: JobStore, live: LiveStatus, clock: Callable[[], float], interval_seconds: float) -> None:
        """Nobody watches yet.

        Args:
            jobs: Store of the jobs and their events.
            live: Progress of jobs, and the notifications of their changes.
            clock: Gives monotonic seconds.
            interval_seconds: Length of the intervals in each of which a watcher that has heard everything gets one
                message at most; 0 for no limit.
        """
        self._jobs = jobs
        self._live = live
        self._clock = clock
        self._interval_seconds = interval_seconds
        self.watchers = 0
        self._going_away = False
        # A feed is here as long as somebody watches.
        self._feeds: WeakValueDictionary[str, _Feed] = WeakValueDictionary()

    async def watch(self, job_id: str, from_event: int) -> AsyncIterator[bytes]:
        """The events of a job from a number on, until it has ended and all is told.

        In between comes its newest progress, or why it waits. Events of the past come as fast as they are taken. A
        watcher that has heard everything gets one message at most in each interval, with all that happened meanwhile.
        The end of a job is told at once.

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
                message = feed.tell(watcher)
                if not feed.is_behind(watcher):
                    watcher.due = self._next_interval()
                yield message
        finally:
            self.watchers -= 1

    def go_away(self) -> None:
        """Ends the watches: the service is shutting down."""
        self._going_away = True
        self._live.notify_all()

    def _next_interval(self) -> float:
        """Beginning of the next interval: the same for all watchers, for messages that go out together cost less."""
        if not self._interval_seconds:
            return 0.0
        return (self._clock() // self._interval_seconds + 1) * self._interval_seconds

    def _feed(self, job_id: str) -> "_Feed":
        if (feed := self._feeds.get(job_id)) is None:
            feed = self._feeds[job_id] = _Feed(job_id, self._jobs, self._live)
        return feed

    async def _await_news(self, feed: "_Feed", watcher: _Watcher) -> bool:
        """Waits until the watcher may be told something; false when there is nothing more to come."""
        while True:
            self._require_staying(feed, watcher)
            feed.refresh()
            if not feed.has_news(watcher):
                if feed.ended:
                    return False
                await feed.changed()
            elif not feed.ended and (seconds := watcher.due - self._clock()) > 0:
                await wait_for_event(self._live.next_end(feed.job_id), seconds)
            else:
                return True

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
