"""The thread that makes the steps: the only one that touches the training, and all that it does is the next step.

It waits for whatever comes first: a report on a worker's line, room on a line that something is to be sent on, or a
call from the event loop's thread, which does everything that is not a step.
"""

import asyncio
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.lines import Line, LineBrokenError
from service.parameter_server.training import Training
from workers.scheduling import join_the_batch
from workers.tickets import Refusal, Ticket

__all__ = ["PATIENCE_SECONDS", "Engine", "Member"]

PATIENCE_SECONDS: Final = 60.0
"""A worker that holds tickets and says nothing for so long is given up, and its tickets go to others."""

# It is doubled with every time, up to this.
_MOST_PATIENCE_SECONDS: Final = 960.0
# How often silence is looked for.
_LOOK_SECONDS: Final = 1.0

_FINISHED: Final = ps_pb.FollowResponse(finished=True)

_log = logging.getLogger(__name__)

_Value = TypeVar("_Value")


@dataclass(eq=False)
class Member:
    """A worker that belongs to the job.

    Attributes:
        worker: Its name.
        line: Its line.
        arrival: That it joined, as a sentence.
        gone: Set, on the event loop, when the engine gives the worker up.
        reason: Why it did; empty if the training is over.
        refusals: Of the results that no order has answered yet; None for one that was taken.
        heard: When it last said something, or was told something.
        seconds: What its time went into until then, by activity.
    """

    worker: str
    line: Line
    arrival: str
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    reason: str = ""
    refusals: list[Refusal | None] = field(default_factory=list)
    heard: float = 0.0
    seconds: Sequence[float] = ()

    @property
    def loss(self) -> str:
        """That it was lost, as a sentence."""
        return f"{self.worker} was lost{f' ({self.reason})' if self.reason else ''}; its tickets go to others"


class Engine:
    """Runs the training on a thread of its own."""

    def __init__(
        self, training: Training, patience_seconds: float, tell: Callable[[ps_pb.FollowResponse], None]
    ) -> None:
        """Starts the thread; to be called on the event loop's.

        Args:
            training: Not to be touched by anybody else from now on, but through `call`.
            patience_seconds: How long a worker that holds tickets may say nothing.
            tell: Called on the event loop with what happened: a worker joined or was lost, an epoch ended, or the
                training.
        """
        self._training = training
        self._patience_seconds = patience_seconds
        self._tell = tell
        self._told_over = False
        self._members: dict[str, Member] = {}
        self._calls: deque[Callable[[], None]] = deque()
        self._calls_lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._listeners: dict[int, Callable[[], None]] = {}
        self._alarm = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._register(self._alarm, self._answer_calls)
        self._closing = False
        self._running = True
        self._now = self._next_look = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="steps", daemon=True)
        self._thread.start()

    async def call(self, function: Callable[[], _Value]) -> _Value:
        """Calls a function on the engine's thread, between two reports."""
        answer: asyncio.Future[_Value] = self._loop.create_future()

        def run() -> None:
            try:
                value = function()
            except Exception as error:  # noqa: BLE001 (it is raised where it was called for)
                self._to_loop(_set_exception, answer, error)
            else:
                self._to_loop(_set_result, answer, value)

        with self._calls_lock:
            if self._running:
                self._calls.append(run)
                os.eventfd_write(self._alarm, 1)
            else:
                run()
        return await answer

    async def add(self, member: Member) -> None:
        """The worker gets tickets until it is removed; it is gone at once if there are none any more."""

        def add() -> None:
            if self._training.over or not self._running:
                self._to_loop(member.gone.set)
                return
            self._members[member.worker] = member
            self._register(member.line.fileno(), partial(self._listen, member))
            self._training.join(member.worker)
            # Before whatever comes of its tickets.
            self._to_loop(self._tell, ps_pb.FollowResponse(worker_joined=member.arrival))
            self._deal()

        await self.call(add)

    async def remove(self, member: Member) -> None:
        """The worker belongs to the job no more, or never did; its tickets go to others."""

        def remove() -> None:
            if not self._members.pop(member.worker, None):
                member.line.close()
                return
            self._give_up(member, "")
            self._training.totals.add_worker_seconds(member.seconds)
            if not self._training.over:
                self._to_loop(self._tell, ps_pb.FollowResponse(worker_lost=member.loss))
            self._training.leave(member.worker)
            self._deal()

        await self.call(remove)

    def state(self) -> ps_pb.FollowResponse:
        """Where the training stands; to be called on the engine's thread."""
        training, members = self._training, self._members.values()
        telemetry = training.totals.message(
            worker_seconds=[member.seconds for member in members],
            server_seconds=training.stopwatch.seconds,
            transports=[member.line.transport for member in members],
        )
        return ps_pb.FollowResponse(progress=training.progress(), telemetry=telemetry)

    async def close(self) -> None:
        """Ends the thread and closes all lines."""

        def close() -> None:
            for member in self._members.values():
                self._give_up(member, "the parameter server stops")
            self._closing = True

        await self.call(close)
        await asyncio.to_thread(self._thread.join)
        self._epoll.close()
        os.close(self._alarm)

    # -- on the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Makes steps until the engine is closed; what ends them before fails the job, which would else stand still."""
        try:
            join_the_batch()
            # One BLAS thread: others would go on looking for work for milliseconds, on the CPUs of the workers. A
            # training that diverges overflows, and is ended for that with advice.
            with threadpool_limits(1), np.errstate(over="ignore", invalid="ignore"):
                self._make_steps()
        except Exception as error:  # noqa: BLE001 (whatever it is, the service must learn of it)
            _log.exception("the steps cannot go on")
            self._to_loop(self._tell, ps_pb.FollowResponse(failed=f"the parameter server failed: {error!r}"))
        finally:
            self._answer_last_calls()

    def _make_steps(self) -> None:
        """Waits for whatever comes first, and deals with it."""
        while not self._closing:
            ready = self._epoll.poll(_LOOK_SECONDS)
            self._now = time.monotonic()
            self._training.stopwatch.lap("waiting")
            for file, _ in ready:
                if listen := self._listeners.get(file):
                    listen()
            if self._now > self._next_look:
                self._look_for_silence()

    def _register(self, file: int, listen: Callable[[], None]) -> None:
        self._listeners[file] = listen
        self._epoll.register(file, select.EPOLLIN)

    def _listen(self, member: Member) -> None:
        """Takes what has come on a line, and sends what could not be sent. What comes next is told by the selector."""
        training, line = self._training, member.line
        try:
            report = line.report()
            training.stopwatch.lap("receiving")
            if report:
                member.heard = self._now
                member.refusals.append(training.take(member.worker, report.attempt, report.result))
                member.seconds = report.seconds
                if training.stirred:
                    self._deal()
                if member.refusals and training.holds(member.worker):
                    self._send(member, [])
            else:
                line.flush()
                self._watch(member)
        except LineBrokenError as broken:
            self._give_up(member, f"its line broke: {broken}")

    def _deal(self) -> None:
        """Gives out what can be given out, and then tells what the last result brought about."""
        training = self._training
        for worker, tickets in training.deal().items():
            self._send(self._members[worker], tickets)
        training.stopwatch.lap("dealing")
        training.book()
        for epoch_end in training.pop_epoch_ends():
            self._to_loop(self._tell, ps_pb.FollowResponse(epoch_end=epoch_end))
        if training.over and not self._told_over:
            self._told_over = True
            for member in self._members.values():
                self._give_up(member, "")
            end = ps_pb.FollowResponse(failed=training.failure) if training.failure else _FINISHED
            self._to_loop(self._tell, end)

    def _send(self, member: Member, tickets: list[Ticket]) -> None:
        refusals, member.refusals = member.refusals, []
        member.heard = self._now
        try:
            member.line.send(tickets, refusals, self._training.version)
        except LineBrokenError as broken:
            self._give_up(member, f"its line broke: {broken}")
            return
        if member.line.unsent:
            self._watch(member)

    def _watch(self, member: Member) -> None:
        write = select.EPOLLOUT if member.line.unsent else 0
        self._epoll.modify(member.line.fileno(), select.EPOLLIN | write)

    def _give_up(self, member: Member, reason: str) -> None:
        """Closes the line. The worker's tickets stay its own until its membership ends, which this brings about."""
        if member.line.fileno() < 0:
            return
        self._epoll.unregister(member.line.fileno())
        del self._listeners[member.line.fileno()]
        member.line.close()
        member.reason = member.reason or reason
        self._to_loop(member.gone.set)

    def _look_for_silence(self) -> None:
        """Workers may hang while their processes answer pings; one that is only slow joins again, and has more time."""
        now = self._now
        self._next_look = now + min(_LOOK_SECONDS, self._patience_seconds / 2)
        silent = [
            member
            for member in self._members.values()
            if member.line.fileno() >= 0
            and self._training.holds(member.worker)
            and now - member.heard > self._patience_seconds
        ]
        for member in silent:
            self._give_up(member, f"no word of {member.worker} for {self._patience_seconds:.0f} s")
        if silent:
            self._patience_seconds = min(2 * self._patience_seconds, _MOST_PATIENCE_SECONDS)

    def _answer_calls(self) -> None:
        os.eventfd_read(self._alarm)
        while self._calls:
            self._calls.popleft()()

    def _answer_last_calls(self) -> None:
        """Those that come later are made by the caller."""
        with self._calls_lock:
            self._running = False
            while self._calls:
                self._calls.popleft()()

    def _to_loop(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            _log.debug("the event loop is closed already")


def _set_result(answer: "asyncio.Future[_Value]", value: _Value) -> None:
    if not answer.done():
        answer.set_result(value)


def _set_exception(answer: "asyncio.Future[Any]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
