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

# The largest number that the database can store.
_LAST_EVENT = (1 << 63) - 1
# Number of a job's last events that stay in memory while it is watched.
_CACHED_EVENTS = 1000
# Limits of one message, so that clients which never read hold little memory.
_MESSAGE_EVENTS = 250
_MESSAGE_BYTES = 64 << 10


@dataclass
class _Watcher:
    """Position of one watcher in the events of a job.

    Attributes:
        coming: Number of the next event.
        last_status: The last live status that was sent, serialised.
        due: Earliest time of the next message, in seconds of the clock.
    """

    coming: int
    last_status: bytes = b""
    due: float = 0.0


class Watches:
    """Watches of the service. Those of one job share a feed; none waits for another.

    Attributes:
        watchers: Number of watchers.
    """

    def __init__(self, jobs: JobStore, live: LiveStatus, clock: Callable[[], float], interval_seconds: float) -> None:
        """Has no watcher yet.

        Args:
            jobs: Store of the jobs and their events.
            live: Progress of jobs, and the notifications of their changes.
            clock: Monotonic seconds.
            interval_seconds: Length of an interval, in which a watcher that is up to date gets at most one message; 0
                for no limit.
        """
        self._jobs = jobs
        self._live = live
        self._clock = clock
        self._interval_seconds = interval_seconds
        self.watchers = 0
        self._going_away = False
        # A feed stays here as long as it has watchers.
        self._feeds: WeakValueDictionary[str, _Feed] = WeakValueDictionary()

    async def watch(self, job_id: str, from_event: int) -> AsyncIterator[bytes]:
        """Yields the events of a job from a number on, until it has ended and all events are sent.

        In between comes the newest progress, or why the job waits. Past events come as fast as they are read. A watcher
        that is up to date gets at most one message in each interval, with all that happened meanwhile. The end of a
        job is sent at once.

        Returns:
            Serialised WatchJobResponses.

        Raises:
            ServiceError: NOT_FOUND, also if the job is deleted meanwhile; GOING_AWAY, with the event to resume from.
        """
        feed = self._feed(job_id)
        watcher = _Watcher(min(max(from_event, 1), _LAST_EVENT))
        self.watchers += 1
        try:
            while await self._await_update(feed, watcher):
                message = feed.next_message(watcher)
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
        """Returns the start of the next interval, the same for all watchers: messages sent together cost less."""
        if not self._interval_seconds:
            return 0.0
        return (self._clock() // self._interval_seconds + 1) * self._interval_seconds

    def _feed(self, job_id: str) -> "_Feed":
        if (feed := self._feeds.get(job_id)) is None:
            feed = self._feeds[job_id] = _Feed(job_id, self._jobs, self._live)
        return feed

    async def _await_update(self, feed: "_Feed", watcher: _Watcher) -> bool:
        """Waits until a message for the watcher is due. Returns False if no more will come."""
        while True:
            self._require_running(feed, watcher)
            feed.refresh()
            if not feed.has_update(watcher):
                if feed.ended:
                    return False
                await feed.changed()
            elif not feed.ended and (seconds := watcher.due - self._clock()) > 0:
                await wait_for_event(self._live.next_end(feed.job_id), seconds)
            else:
                return True

    def _require_running(self, feed: "_Feed", watcher: _Watcher) -> None:
        if self._going_away:
            raise ServiceError(
                Reason.GOING_AWAY,
                f"the service is shutting down: resume from event {watcher.coming} when it is back",
                job_id=feed.job_id,
                from_event=str(watcher.coming),
            )


class _Feed:
    """Feed of one job: events and live status, read and serialised once for all its watchers.

    Joined bytes of protobuf messages are one merged message.

    Attributes:
        job_id: Id of the job.
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
        self._status = b""
        self._cached: deque[bytes] = deque(maxlen=_CACHED_EVENTS)
        self._last = max(jobs.last_event(job_id) - _CACHED_EVENTS, 0)
        self._read()

    def refresh(self) -> None:
        """Reads the job again if it has changed since the last read.

        Raises:
            ServiceError: NOT_FOUND.
        """
        if self._change.is_set():
            self._read()

    async def changed(self) -> None:
        """Waits until the job has changed since the last read."""
        await self._change.wait()

    def is_behind(self, watcher: _Watcher) -> bool:
        """Returns whether there are events that the watcher has not received."""
        return watcher.coming <= self._last

    def has_update(self, watcher: _Watcher) -> bool:
        """Returns whether there is an event or a live status that the watcher has not received."""
        return self.is_behind(watcher) or bool(self._new_status(watcher))

    def next_message(self, watcher: _Watcher) -> bytes:
        """Returns the next message, and moves the watcher on. A live status belongs after the last event."""
        events = self._events(watcher.coming) if self.is_behind(watcher) else []
        watcher.coming += len(events)
        status = b"" if self.is_behind(watcher) else self._new_status(watcher)
        watcher.last_status = status or watcher.last_status
        return b"".join([*events, status])

    def _new_status(self, watcher: _Watcher) -> bytes:
        return b"" if self._status == watcher.last_status else self._status

    def _read(self) -> None:
        # The notification is stored only after all is read. If reading fails now, it is tried again next time.
        change = self._live.next_change(self.job_id)
        state = self._jobs.get(self.job_id).state
        self.ended = state in ENDED
        while events := self._jobs.events(self.job_id, self._last + 1, _CACHED_EVENTS):
            self._cached.extend(map(_serialised, events))
            self._last = events[-1].number
        self._status = b"" if self.ended else self._live_status(state).SerializeToString()
        self._change = change

    def _live_status(self, state: State) -> jobs_pb.WatchJobResponse:
        """Returns the progress of a running job, or why a queued job waits, if known."""
        if state == QUEUED and (reason := self._live.waiting_reason(self.job_id)):
            return jobs_pb.WatchJobResponse(waiting=jobs_pb.Waiting(reason=reason))
        return jobs_pb.WatchJobResponse(progress=self._live.progress(self.job_id))

    def _events(self, coming: int) -> list[bytes]:
        """Returns the events from `coming` on that fit into one message; those not in memory are read again."""
        first = self._last + 1 - len(self._cached)
        if coming < first:
            return _fitting(map(_serialised, self._jobs.events(self.job_id, coming, _MESSAGE_EVENTS)))
        start = coming - first
        return _fitting(islice(self._cached, start, start + _MESSAGE_EVENTS))


def _serialised(event: jobs_pb.Event) -> bytes:
    """Returns a message with this event alone."""
    return jobs_pb.WatchJobResponse(events=[event]).SerializeToString()


def _fitting(events: Iterable[bytes]) -> list[bytes]:
    """Returns the first events that fit into one message, at least one."""
    fitting: list[bytes] = []
    size = 0
    for event in events:
        size += len(event)
        if fitting and size > _MESSAGE_BYTES:
            break
        fitting.append(event)
    return fitting
