"""The workers that belong to a job, as the thread of the steps sees them."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector
from typing import Final

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.transport.thread_bridge import ThreadBridge
from service.parameter_server.transport.worker_connection import WorkerConnection, WorkerConnectionError
from service.parameter_server.transport.worker_statistics import WorkerStatistics, total
from workers.runtime.process_usage import Usage
from workers.transport.frames import ACTIVITIES, FIGURES, Report
from workers.transport.tickets import Rejection, Ticket

__all__ = ["Member", "Members"]

# Patience is doubled with every time that it ends, up to this.
_MOST_PATIENCE_SECONDS: Final = 960.0
# Further workers are counted together, so that a job of thousands has no more figures than this.
_MOST_NAMED: Final = 64
_OTHERS: Final = "others"
_GATHERING, _COMPUTING = ACTIVITIES.index("gathering"), ACTIVITIES.index("computing")


@dataclass(eq=False)
class Member:
    """A worker that belongs to the job.

    Attributes:
        worker: Its name.
        line: Its line.
        arrival: That it joined, as a sentence.
        arithmetic: What it computes with; None if it did not say.
        gone: Set, on the event loop, when the engine gives the worker up.
        reason: Why it did; empty if the training is over, or the worker is one too many.
        refusals: Of the results that no order has answered yet; None for one that was taken.
        heard: When it last said something, or was told something.
        figures: What it told of itself then, by FIGURES.
        share: What it has contributed, or those have that it is counted together with.
    """

    worker: str
    line: WorkerConnection
    arrival: str
    arithmetic: jobs_pb.Arithmetic | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    reason: str = ""
    refusals: list[Rejection | None] = field(default_factory=list)
    heard: float = 0.0
    figures: Sequence[float] = (0.0,) * len(FIGURES)
    share: WorkerStatistics = field(default_factory=WorkerStatistics)

    def hear(self, report: Report, now: float) -> float:
        """It says something now; for how many seconds it computed since it said something before."""
        before, figures = self.figures, report.figures
        self.figures, self.heard = figures, now
        return figures[_GATHERING] - before[_GATHERING] + (figures[_COMPUTING] - before[_COMPUTING])

    @property
    def seconds(self) -> Sequence[float]:
        """What its time went into, by activity."""
        return self.figures[: len(ACTIVITIES)]

    @property
    def usage(self) -> Usage:
        """What its process has used."""
        return Usage(*self.figures[len(ACTIVITIES) :])

    @property
    def present(self) -> bool:
        """Whether its line is open."""
        return self.line.fileno() >= 0

    @property
    def loss(self) -> str:
        """That it was lost, as a sentence."""
        return f"{self.worker} was lost{f' ({self.reason})' if self.reason else ''}; its tickets go to others"


class Members:
    """Who is there, in the order of their coming, and their lines.

    Attributes:
        patience_seconds: How long one that holds tickets may say nothing, at present.
    """

    def __init__(self, patience_seconds: float, selector: BaseSelector, calls: ThreadBridge) -> None:
        """Nobody is there.

        Args:
            patience_seconds: At first.
            selector: Of the engine; each line is registered with the function to call.
            calls: To those who attend.
        """
        self.patience_seconds = patience_seconds
        self._selector = selector
        self._calls = calls
        self._members: dict[str, Member] = {}
        self._others = WorkerStatistics()
        self._gone_cpu_seconds = 0.0  # of others

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def add(self, member: Member, listen: Callable[[], None]) -> None:
        """A worker comes; `listen` is called whenever it has said something, or can be sent what is unsent.

        It may be called once more after the line was closed, for what came in the same look of the selector.
        """
        if sum(other.share is not self._others for other in self) >= _MOST_NAMED:
            member.share = self._others
        self._members[member.worker] = member
        self._selector.register(member.line.fileno(), EVENT_READ, listen)

    def pop(self, member: Member) -> bool:
        """A worker goes, and its line is closed; whether it was there."""
        there = self._members.pop(member.worker, None) is not None
        if there:
            self.give_up(member, "")
            if member.share is self._others:
                self._gone_cpu_seconds += total([member.usage]).cpu_seconds
        else:
            member.line.close()
        return there

    def surplus(self, most: int) -> list[Member]:
        """Those of the workers with open lines that are more than so many, the newest first."""
        return [member for member in self if member.present][most:][::-1]

    def figures(self) -> Iterator[ps_pb.WorkerFigures]:
        """Of each worker, and of those that are counted together."""
        others = []
        for member in self:
            if member.share is self._others:
                others.append(member.usage)
            else:
                yield member.share.figures(member.worker, member.usage)
        if others:
            present = total(others)
            # The memory is that of those who are there.
            usage = present._replace(cpu_seconds=present.cpu_seconds + self._gone_cpu_seconds)
            yield self._others.figures(_OTHERS, usage)

    def send(self, worker: str, tickets: list[Ticket], version: int, now: float) -> None:
        """Sends an order: tickets, and what became of the results before. A line that breaks is given up."""
        member = self._members[worker]
        refusals, member.refusals = member.refusals, []
        member.heard = now
        try:
            member.line.send(tickets, refusals, version)
        except WorkerConnectionError as broken:
            self.give_up(member, f"its line broke: {broken}")
            return
        if member.line.unsent:
            self._await_room(member, writing=True)

    def flush(self, member: Member) -> None:
        """Sends what could not be sent before.

        Raises:
            WorkerConnectionError: The worker is gone.
        """
        member.line.flush()
        self._await_room(member, writing=member.line.unsent)

    def give_up(self, member: Member, reason: str) -> None:
        """Closes the line. The worker's tickets stay its own until its membership ends, which this brings about."""
        if not member.present:
            return
        self._selector.unregister(member.line.fileno())
        member.line.close()
        member.reason = member.reason or reason
        self._calls.to_loop(member.gone.set)

    def give_up_all(self, reason: str) -> None:
        """Closes all lines."""
        for member in self:
            self.give_up(member, reason)

    def give_up_silent(self, holds: Callable[[str], bool], now: float) -> None:
        """Workers may hang while their processes answer pings; one that is only slow joins again, and has more time."""
        patience = self.patience_seconds
        silent = [
            member for member in self if member.present and holds(member.worker) and now - member.heard > patience
        ]
        for member in silent:
            self.give_up(member, f"no word of {member.worker} for {patience:.0f} s")
        if silent:
            self.patience_seconds = min(2 * patience, _MOST_PATIENCE_SECONDS)

    def _await_room(self, member: Member, *, writing: bool) -> None:
        """Has the selector look for room on the line as well, or no more."""
        file = member.line.fileno()
        self._selector.modify(file, EVENT_READ | (EVENT_WRITE if writing else 0), self._selector.get_key(file).data)
