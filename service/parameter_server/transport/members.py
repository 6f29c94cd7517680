"""Members: the workers that belong to a job, with their connections, for the thread that makes the steps."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector
from typing import Final

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.progress.attempt_statistics import WorkerCounters, total_usage
from service.parameter_server.transport.thread_bridge import ThreadBridge
from service.parameter_server.transport.worker_connection import WorkerConnection, WorkerConnectionError
from workers.runtime.process_statistics import Usage
from workers.transport.frames import ACTIVITIES, WORKER_STATISTICS, Report
from workers.transport.tickets import Rejection, Ticket

__all__ = ["Member", "Members"]

# The patience doubles each time that a worker exceeds it, up to this.
_MOST_PATIENCE_SECONDS: Final = 960.0
# Further workers are counted together, so that a job of thousands has no more series of metrics than this.
_MOST_NAMED: Final = 64
_OTHERS: Final = "others"
_GATHERING, _COMPUTING = ACTIVITIES.index("gathering"), ACTIVITIES.index("computing")


@dataclass(eq=False)
class Member:
    """A worker that belongs to the job.

    Attributes:
        worker: Name of the worker.
        connection: Its connection.
        arrival: Sentence, that it joined.
        arithmetic: Its numeric environment; None if it did not report one.
        gone: Set, on the event loop, when the engine disconnects the worker.
        reason: Reason of that; empty if the training is over, or the worker is one too many.
        rejections: Acknowledgements of its results that no order has carried yet; None for one that was accepted.
        heard: Time of its last report or order, in monotonic seconds.
        statistics: Its last reported statistics, in the order of WORKER_STATISTICS.
        counters: Running totals of its results, or of all workers that it is counted together with.
    """

    worker: str
    connection: WorkerConnection
    arrival: str
    arithmetic: jobs_pb.Arithmetic | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    reason: str = ""
    rejections: list[Rejection | None] = field(default_factory=list)
    heard: float = 0.0
    statistics: Sequence[float] = (0.0,) * len(WORKER_STATISTICS)
    counters: WorkerCounters = field(default_factory=WorkerCounters)

    def record_report(self, report: Report, now: float) -> float:
        """Records the statistics of a report; returns the seconds that it computed since its last report."""
        before, statistics = self.statistics, report.statistics
        self.statistics, self.heard = statistics, now
        return statistics[_GATHERING] - before[_GATHERING] + (statistics[_COMPUTING] - before[_COMPUTING])

    def record_steps(self, now: float) -> None:
        """Records the statistics that the worker writes to shared memory while it makes steps."""
        memory = self.connection.run_memory
        if memory is not None:
            self.statistics, self.heard = memory.statistics.tolist(), now

    @property
    def seconds(self) -> Sequence[float]:
        """Seconds by activity."""
        return self.statistics[: len(ACTIVITIES)]

    @property
    def usage(self) -> Usage:
        """Usage of its process."""
        return Usage(*self.statistics[len(ACTIVITIES) :])

    @property
    def connected(self) -> bool:
        """True while its connection is open."""
        return self.connection.fileno() >= 0

    @property
    def loss(self) -> str:
        """Sentence, that it was lost."""
        return f"{self.worker} was lost{f' ({self.reason})' if self.reason else ''}; its tickets go to others"


class Members:
    """The members in the order in which they joined, and their connections.

    Attributes:
        patience_seconds: Time that one whose report is due may be silent, at present.
    """

    def __init__(self, patience_seconds: float, selector: BaseSelector, bridge: ThreadBridge) -> None:
        """Starts without members.

        Args:
            patience_seconds: Patience at first.
            selector: Selector of the engine; each connection is registered with the function to call.
            bridge: Bridge to the event loop, where the calls of members wait.
        """
        self.patience_seconds = patience_seconds
        self._selector = selector
        self._bridge = bridge
        self._members: dict[str, Member] = {}
        self._others = WorkerCounters()
        self._gone_cpu_seconds = 0.0  # of others

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def add_member(self, member: Member, on_ready: Callable[[], None]) -> None:
        """Adds a member; `on_ready` is called when its connection has something to read, or room for what is unsent.

        It may be called once more after the connection was closed, for what the same poll of the selector found.
        """
        if sum(other.counters is not self._others for other in self) >= _MOST_NAMED:
            member.counters = self._others
        self._members[member.worker] = member
        self._selector.register(member.connection.fileno(), EVENT_READ, on_ready)

    def remove_member(self, member: Member) -> bool:
        """Removes a member, and closes its connection; returns whether it was one."""
        found = self._members.pop(member.worker, None) is not None
        if found:
            self.disconnect(member, "")
            if member.counters is self._others:
                self._gone_cpu_seconds += total_usage([member.usage]).cpu_seconds
        else:
            member.connection.close()
        return found

    def member(self, worker: str) -> Member:
        """Returns the member of this name."""
        return self._members[worker]

    def excess(self, most: int) -> list[Member]:
        """Returns the connected members beyond `most`, the newest first."""
        return [member for member in self if member.connected][most:][::-1]

    def statistics(self) -> Iterator[ps_pb.WorkerStatistics]:
        """Yields the statistics of each worker, and of those that are counted together."""
        others = []
        for member in self:
            if member.counters is self._others:
                others.append(member.usage)
            else:
                yield member.counters.message(member.worker, member.usage)
        if others:
            present = total_usage(others)
            # Memory is that of present workers, CPU seconds are those of all.
            usage = present._replace(cpu_seconds=present.cpu_seconds + self._gone_cpu_seconds)
            yield self._others.message(_OTHERS, usage)

    def send_order(self, worker: str, tickets: list[Ticket], version: int, now: float, run: int = 0) -> None:
        """Sends tickets, and acknowledgements of earlier results; disconnects a worker whose connection breaks.

        Args:
            worker: Name of the member.
            tickets: Its new tickets.
            version: Version of the weights.
            now: Monotonic seconds.
            run: Number of the run that begins with the tickets; 0: none.
        """
        member = self._members[worker]
        rejections, member.rejections = member.rejections, []
        member.heard = now
        try:
            member.connection.send_order(tickets, rejections, version, run)
        except WorkerConnectionError as error:
            self.disconnect(member, f"its connection broke: {error}")
            return
        if member.connection.has_unsent:
            self._await_room(member, writing=True)

    def flush(self, member: Member) -> None:
        """Sends what could not be sent before.

        Raises:
            WorkerConnectionError: The connection broke.
        """
        member.connection.flush()
        self._await_room(member, writing=member.connection.has_unsent)

    def detach_unsent(self) -> None:
        """Copies what waits to be sent, because the weights in it may be written to next."""
        for member in self:
            if member.connection.has_unsent:
                member.connection.detach_weights()

    def disconnect(self, member: Member, reason: str) -> None:
        """Closes a connection, which ends the membership; the worker keeps its tickets until then."""
        if not member.connected:
            return
        self._selector.unregister(member.connection.fileno())
        member.connection.close()
        member.reason = member.reason or reason
        self._bridge.call_on_loop(member.gone.set)

    def disconnect_all(self, reason: str) -> None:
        """Closes all connections."""
        for member in self:
            self.disconnect(member, reason)

    def disconnect_silent(self, is_at_work: Callable[[str], bool], now: float) -> None:
        """Disconnects workers whose report is due and that exceed the patience, which grows then.

        A worker may hang while its process answers pings. One that is only slow joins again, and has more time.
        """
        patience = self.patience_seconds
        silent = [
            member
            for member in self
            if member.connected and is_at_work(member.worker) and now - member.heard > patience
        ]
        for member in silent:
            self.disconnect(member, f"no word of {member.worker} for {patience:.0f} s")
        if silent:
            self.patience_seconds = min(2 * patience, _MOST_PATIENCE_SECONDS)

    def _await_room(self, member: Member, *, writing: bool) -> None:
        """Sets whether the selector waits for room on the connection as well."""
        file = member.connection.fileno()
        self._selector.modify(file, EVENT_READ | (EVENT_WRITE if writing else 0), self._selector.get_key(file).data)
