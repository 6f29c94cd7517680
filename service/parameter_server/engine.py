"""The thread that makes the steps: the only one that touches the training, and all that it does is the next step.

It waits for whatever comes first: a report on a worker's line, room on a line that something is to be sent on, or a
call from the event loop's thread, which does everything that is not a step.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from selectors import EVENT_READ, DefaultSelector
from typing import Any, Final, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.checkpoints import Checkpoint, CheckpointDesk, CheckpointSchedule, Waiter
from service.parameter_server.progress.event_log import TrainingEventLog
from service.parameter_server.training import Training
from service.parameter_server.transport.members import Member, Members
from service.parameter_server.transport.thread_bridge import ThreadBridge
from service.parameter_server.transport.worker_connection import WorkerConnectionError
from service.parameter_server.transport.worker_statistics import enter_usage
from workers.runtime.cpu_scheduling import use_batch_scheduling
from workers.runtime.process_usage import UsageMeter

__all__ = ["PATIENCE_SECONDS", "Engine"]

PATIENCE_SECONDS: Final = 60.0
"""A worker that holds tickets and says nothing for so long is given up, and its tickets go to others."""

# How often silence is looked for.
_LOOK_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)

_Value = TypeVar("_Value")


class Engine:
    """Runs the training on a thread of its own."""

    def __init__(
        self,
        training: Training,
        patience_seconds: float,
        checkpoints: spec_pb.CheckpointsSpec,
        description: Mapping[str, Any],
        arithmetic: jobs_pb.Arithmetic,
        news: Callable[[], None],
    ) -> None:
        """Starts the thread; to be called on the event loop's.

        Args:
            training: Not to be touched by anybody else from now on, but through `call`.
            patience_seconds: How long a worker that holds tickets may say nothing.
            checkpoints: When they are due.
            description: What they belong to.
            arithmetic: What this process computes with.
            news: Called on the event loop when something has happened that followers must be told at once.
        """
        self._training = training
        self._most_members: int | None = None
        self._dealt_rounds = 0
        self._now = self._next_look = time.monotonic()
        self._calls = ThreadBridge()
        self._chronicle = TrainingEventLog(partial(self._calls.to_loop, news))
        self._chronicle.add_arithmetic(arithmetic)
        schedule = CheckpointSchedule(checkpoints, training.position, self._now)
        self._desk = CheckpointDesk(schedule, description, self._calls, self._chronicle)
        self._selector = DefaultSelector()
        self._selector.register(self._calls.fileno(), EVENT_READ, self._calls.answer)
        self._members = Members(patience_seconds, self._selector, self._calls)
        self._usage = UsageMeter()
        self._broken: Exception | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="steps", daemon=True)
        self._thread.start()

    async def call(self, function: Callable[[], _Value]) -> _Value:
        """ThreadBridge a function on the engine's thread, between two reports."""
        return await self._calls.make(function)

    async def add(self, member: Member) -> None:
        """The worker gets tickets until it is removed; it is gone at once if there are none any more."""
        await self.call(partial(self._safely, partial(self._add, member)))

    async def remove(self, member: Member) -> None:
        """The worker belongs to the job no more, or never did; its tickets go to others."""
        await self.call(partial(self._safely, partial(self._remove, member)))

    async def set_workers(self, workers: int) -> None:
        """From the next step on there are no more workers than this."""

        def set_workers() -> None:
            self._most_members = workers

        await self.call(set_workers)

    async def checkpoint(self, *, now: bool) -> Checkpoint | None:
        """Waits for the next checkpoint that is due, or takes one now; None if the training is over.

        Raises:
            MemoryError: There is no room for it. The training goes on.
        """
        waiter: Waiter = self._calls.loop.create_future()
        ask = self._desk.take if now else self._desk.wait
        await self.call(lambda: ask(waiter, self._training, time.monotonic()))
        return await waiter

    def tell_news(self, seen: int, *, with_telemetry: bool) -> ps_pb.FollowResponse | None:
        """As `tell`, if more has happened than the follower has seen; to be called on the engine's thread."""
        return self.tell(seen, with_telemetry=with_telemetry) if len(self._chronicle) > seen else None

    def tell(self, seen: int, *, with_telemetry: bool = False) -> ps_pb.FollowResponse:
        """What a follower is told that has seen so many events; to be called on the engine's thread.

        The end is told with telemetry in any case.
        """
        told = ps_pb.FollowResponse(progress=self._training.progress(), events=self._chronicle.after(seen))
        if with_telemetry or self._chronicle.ended:
            told.telemetry.CopyFrom(self._telemetry())
        return told

    def _telemetry(self) -> ps_pb.Telemetry:
        """What was counted since the beginning of the attempt."""
        training, members = self._training, self._members
        telemetry = training.totals.message(
            worker_seconds=[member.seconds for member in members],
            server_seconds=training.stopwatch.seconds,
            transports=[member.line.transport for member in members],
        )
        training.steps.tell(telemetry)
        telemetry.workers.extend(members.figures())
        enter_usage(telemetry.process, self._usage.read())
        return telemetry

    async def close(self) -> None:
        """Ends the thread and closes all lines."""

        def close() -> None:
            self._members.give_up_all("the parameter server stops")
            self._desk.close()
            self._closing = True

        await self.call(close)
        await asyncio.to_thread(self._thread.join)
        self._selector.close()
        self._calls.close()

    # -- on the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Makes steps until the engine is closed; what ends them before fails the job, which would else stand still."""
        try:
            use_batch_scheduling()
            # One BLAS thread: others would go on looking for work for milliseconds, on the CPUs of the workers. A
            # training that diverges overflows, and is ended for that with advice.
            with threadpool_limits(1), np.errstate(over="ignore", invalid="ignore"):
                self._make_steps()
        except Exception as error:  # noqa: BLE001 (whatever it is, the service must learn of it)
            _log.exception("the steps cannot go on")
            self._chronicle.add(ps_pb.TrainingEvent(failed=f"the parameter server failed: {error!r}"))
            self._desk.close()
        finally:
            self._calls.answer_last()

    def _make_steps(self) -> None:
        """Waits for whatever comes first, and deals with it."""
        self._training.stopwatch.lap("waiting")
        self._deal()
        while not self._closing:
            self._await_files()
            if self._broken:
                raise self._broken
            if self._now > self._next_look:
                self._next_look = self._now + min(_LOOK_SECONDS, self._members.patience_seconds / 2)
                self._members.give_up_silent(self._training.holds, self._now)

    def _await_files(self) -> None:
        """Waits for files that have something, and calls those who listen to them.

        Holds none of them longer: a lost worker's memory is not kept until the next thing happens.
        """
        ready = self._selector.select(_LOOK_SECONDS)
        self._now = time.monotonic()
        self._training.stopwatch.lap("waiting")
        for key, _ in ready:
            key.data()

    def _safely(self, function: Callable[[], None]) -> None:
        """ThreadBridge what must not be left half done: if it is, the steps cannot go on."""
        try:
            function()
        except Exception as error:  # noqa: BLE001 (it is raised where the steps are made)
            self._broken = error

    def _listen(self, member: Member) -> None:
        """Takes what has come on a line, and sends what could not be sent. What comes next is told by the selector."""
        if not member.present:  # it was given up for what another one said in the same look
            return
        training, line = self._training, member.line
        try:
            report = line.report()
            training.stopwatch.lap("receiving")
            if report:
                computed = member.hear(report, self._now)
                refusal = training.take(member.worker, report.attempt, report.result, computed, self._now)
                member.refusals.append(refusal)
                if training.stirred:
                    self._deal()
                if member.refusals and training.holds(member.worker):
                    self._members.send(member.worker, [], training.version, self._now)
                if refusal is None:
                    member.share.add(report.result.sums.samples, training.lag)
            else:
                self._members.flush(member)
        except WorkerConnectionError as broken:
            self._members.give_up(member, f"its line broke: {broken}")

    def _deal(self) -> None:
        """Gives out what can be given out, and then books and tells what the last result brought about."""
        training = self._training
        if training.rounds != self._dealt_rounds:
            self._dealt_rounds = training.rounds
            self._release_surplus()
        for worker, tickets in training.deal().items():
            self._members.send(worker, tickets, training.version, self._now)
        training.stopwatch.lap("dealing")
        training.book()
        self._chronicle.add_all(training.pop_events())
        if training.over:
            self._end()
        self._desk.serve(training, self._now)
        training.stopwatch.lap("booking")

    def _end(self) -> None:
        """Lets all workers go, and tells why; once."""
        if self._chronicle.ended:
            return
        training = self._training
        self._members.give_up_all("")
        if training.diverged:
            end = ps_pb.TrainingEvent(diverged=training.failure)
        elif training.failure:
            end = ps_pb.TrainingEvent(failed=training.failure)
        else:
            end = ps_pb.TrainingEvent(finished=training.ending)
        self._chronicle.add(end)

    # -- members -------------------------------------------------------------------------------------------------------

    def _add(self, member: Member) -> None:
        if self._training.over or not self._calls.answered:
            self._calls.to_loop(member.gone.set)
            return
        self._members.add(member, partial(self._listen, member))
        self._training.join(member.worker)
        # Before whatever comes of its tickets.
        if member.arithmetic:
            self._chronicle.add_arithmetic(member.arithmetic)
        self._chronicle.add(ps_pb.TrainingEvent(worker_joined=member.arrival))
        self._deal()

    def _remove(self, member: Member) -> None:
        if not self._members.pop(member):
            return
        self._training.totals.add_worker_seconds(member.seconds)
        if not self._training.over:
            self._chronicle.add(ps_pb.TrainingEvent(worker_lost=member.loss))
        self._training.leave(member.worker)
        self._deal()

    def _release_surplus(self) -> None:
        """Between two steps, those who are too many leave, the newest first."""
        if self._most_members is None or len(self._members) <= self._most_members:
            return
        for member in self._members.surplus(self._most_members):
            self._members.pop(member)
            self._training.totals.add_worker_seconds(member.seconds)
            self._training.leave(member.worker, lost=False)
            left = f"{member.worker} left: there were more workers than the {self._most_members} that are wanted"
            self._chronicle.add(ps_pb.TrainingEvent(worker_left=left))
