"""The engine: the thread that makes the steps, and the only one that touches the coordinator and its shard.

It waits for whatever comes first: a report on a worker's connection, room on a connection for what is unsent, or a call
from the event loop's thread, which does everything that is not a step.
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
from service.parameter_server.checkpoints import (
    CheckpointRequest,
    CheckpointRequests,
    CheckpointSchedule,
    TakenCheckpoint,
)
from service.parameter_server.coordinator import Coordinator
from service.parameter_server.orders import Orders
from service.parameter_server.progress.attempt_statistics import write_usage
from service.parameter_server.progress.core_news import StepCoreNews
from service.parameter_server.progress.event_log import TrainingEventLog
from service.parameter_server.shard.step_core import StepCore
from service.parameter_server.transport.members import Member, Members
from service.parameter_server.transport.thread_bridge import ThreadBridge
from service.parameter_server.transport.worker_connection import WorkerConnectionError
from workers.runtime.host import use_batch_scheduling
from workers.runtime.process_statistics import UsageMeter

__all__ = ["PATIENCE_SECONDS", "Engine"]

PATIENCE_SECONDS: Final = 60.0
"""Time that a worker with tickets may be silent; then it is disconnected, and its tickets go to others."""

# Longest time, in seconds, between two checks for silent workers.
_CHECK_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)

_Value = TypeVar("_Value")


class Engine:
    """Runs the training on a thread of its own."""

    def __init__(
        self,
        coordinator: Coordinator,
        patience_seconds: float,
        checkpoints: spec_pb.CheckpointsSpec,
        description: Mapping[str, Any],
        arithmetic: jobs_pb.Arithmetic,
        notify: Callable[[], None],
        core: StepCore | None = None,
        obstacle: str = "",
    ) -> None:
        """Starts the thread; must run on the event loop's.

        Args:
            coordinator: Belongs to the thread from now on: others may touch it only through `call`.
            patience_seconds: Time that a worker with tickets may be silent.
            checkpoints: Says when checkpoints are due.
            description: Description of the job, for checkpoints.
            arithmetic: Numeric environment of this process.
            notify: Called on the event loop after each event that followers must read at once.
            core: Native step core of the coordinator's shard; None: all steps are made in Python.
            obstacle: Why there is no core, as a sentence.
        """
        self._coordinator = coordinator
        self._most_members: int | None = None
        self._dealt_rounds = 0
        self._now = self._next_check = time.monotonic()
        self._core_news = StepCoreNews()
        self._bridge = ThreadBridge(self._interrupt)
        self._event_log = TrainingEventLog(partial(self._bridge.call_on_loop, notify))
        self._event_log.append_arithmetic(arithmetic)
        schedule = CheckpointSchedule(checkpoints, coordinator.position, self._now)
        self._checkpoint_requests = CheckpointRequests(schedule, description, self._bridge, self._event_log)
        self._selector = DefaultSelector()
        self._selector.register(self._bridge.fileno(), EVENT_READ, self._bridge.run_calls)
        self._members = Members(patience_seconds, self._selector, self._bridge)
        self._orders = Orders(coordinator, self._members, core, obstacle)
        self._usage = UsageMeter()
        self._error: Exception | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="steps", daemon=True)
        self._thread.start()

    async def call(self, function: Callable[[], _Value]) -> _Value:
        """Calls a function on the engine's thread, between two reports, and returns its value."""
        return await self._bridge.call_on_thread(function)

    async def add_worker(self, member: Member) -> None:
        """Adds a worker, which gets tickets until it is removed; it is gone at once if the training is over."""
        await self.call(partial(self._guarded, partial(self._add_worker, member)))

    async def remove_worker(self, member: Member) -> None:
        """Removes a worker, if it was added; its tickets go to others."""
        await self.call(partial(self._guarded, partial(self._remove_worker, member)))

    async def set_workers(self, workers: int) -> None:
        """Limits the number of workers from the next step on."""

        def set_workers() -> None:
            self._most_members = workers

        await self.call(set_workers)

    async def take_checkpoint(self, *, now: bool) -> TakenCheckpoint | None:
        """Waits for the next checkpoint that is due, or takes one now; returns None if the training is over.

        Raises:
            MemoryError: There is no room for it. The training goes on.
        """
        request: CheckpointRequest = self._bridge.loop.create_future()
        requests = self._checkpoint_requests
        ask = requests.request_now if now else requests.request_next
        await self.call(lambda: ask(request, self._coordinator, time.monotonic()))
        return await request

    def report_if_new(self, seen: int, *, with_statistics: bool) -> ps_pb.FollowResponse | None:
        """Returns a report if there are events that the follower has not seen; must run on the engine's thread."""
        return self.report(seen, with_statistics=with_statistics) if len(self._event_log) > seen else None

    def report(self, seen: int, *, with_statistics: bool = False) -> ps_pb.FollowResponse:
        """Returns progress, and the events after the first `seen`; must run on the engine's thread.

        The end of the attempt is reported with statistics in any case.
        """
        response = ps_pb.FollowResponse(
            progress=self._coordinator.progress(), events=self._event_log.events_after(seen)
        )
        if with_statistics or self._event_log.ended:
            response.statistics.CopyFrom(self._statistics())
        return response

    def _statistics(self) -> ps_pb.AttemptStatistics:
        """Returns the statistics since the beginning of the attempt."""
        coordinator, members = self._coordinator, self._members
        statistics = coordinator.counters.message(
            worker_seconds=[member.seconds for member in members],
            server_seconds=coordinator.stopwatch.seconds,
            transports=[member.connection.transport for member in members],
            rejected=coordinator.rejected,
        )
        coordinator.steps.write_to(statistics)
        statistics.workers.extend(members.statistics())
        write_usage(statistics.process, self._usage.read())
        return statistics

    async def close(self) -> None:
        """Ends the thread and closes all connections."""

        def close() -> None:
            self._members.disconnect_all("the parameter server stops")
            self._checkpoint_requests.close()
            self._closing = True

        await self.call(close)
        await asyncio.to_thread(self._thread.join)
        self._selector.close()
        self._bridge.close()

    # -- on the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Makes steps until the engine is closed; an error fails the job, which would otherwise stand still."""
        try:
            use_batch_scheduling()
            # One BLAS thread: others would spin for milliseconds, on the CPUs of the workers. A training that diverges
            # overflows, and is ended for that with advice.
            with threadpool_limits(1), np.errstate(over="ignore", invalid="ignore"):
                self._make_steps()
        except Exception as error:  # noqa: BLE001 (whatever it is, the service must learn of it)
            _log.exception("the steps cannot go on")
            self._orders.end_run()
            self._event_log.append(ps_pb.TrainingEvent(failed=f"the parameter server failed: {error!r}"))
            self._checkpoint_requests.close()
        finally:
            self._bridge.run_last_calls()

    def _make_steps(self) -> None:
        """Handles whatever comes first, until the engine is closed."""
        self._coordinator.stopwatch.lap("waiting")
        self._advance()
        while not self._closing:
            if self._orders.in_run:
                if self._orders.make_steps(self._now):
                    self._advance()
                self._await_files(0)
            else:
                self._await_files(_CHECK_SECONDS)
            if self._error:
                raise self._error
            if self._coordinator.seconds_to_spares <= 0:
                self._advance()
            if self._now > self._next_check:
                self._next_check = self._now + min(_CHECK_SECONDS, self._members.patience_seconds / 2)
                self._members.disconnect_silent(self._orders.is_waited_for, self._now)

    def _await_files(self, seconds: float) -> None:
        """Waits for files that are ready, at most so many seconds, and calls their functions.

        Keeps no reference to them: the memory of a lost worker must not stay until the next file is ready.
        """
        ready = self._selector.select(max(0.0, min(seconds, self._coordinator.seconds_to_spares)))
        self._now = time.monotonic()
        self._coordinator.stopwatch.lap("waiting")
        for key, _ in ready:
            key.data()

    def _guarded(self, function: Callable[[], None]) -> None:
        """Calls a function that must not stop half-way: an error in it ends the steps."""
        try:
            function()
        except Exception as error:  # noqa: BLE001 (it is raised where the steps are made)
            self._error = error

    def _serve_connection(self, member: Member) -> None:
        """Receives a report, or sends what is unsent; the selector calls again if there is more."""
        if not member.connected:  # it was disconnected for what another one did in the same poll
            return
        coordinator = self._coordinator
        try:
            report = member.connection.receive_report()
            coordinator.stopwatch.lap("receiving")
            if report:
                self._require_result_is_due(member)
                computed = member.record_report(report, self._now)
                rejection = coordinator.accept_result(member.worker, report.attempt, report.result, computed, self._now)
                member.rejections.append(rejection)
                if coordinator.has_pending_work:
                    self._advance()
                if member.rejections and coordinator.holds_tickets(member.worker):
                    self._members.send_order(member.worker, [], coordinator.version, self._now)
                if rejection is None:
                    member.counters.add_results(1, report.result.sums.samples, coordinator.lag)
            else:
                self._members.flush(member)
        except WorkerConnectionError as error:
            self._members.disconnect(member, f"its connection broke: {error}")

    def _require_result_is_due(self, member: Member) -> None:
        if self._orders.is_in_run(member.worker):
            raise WorkerConnectionError("it sent a result while it makes steps without messages")

    def _interrupt(self) -> None:
        self._orders.interrupt()

    def _advance(self) -> None:
        """Sends tickets, and then records and reports what the last result brought about."""
        coordinator = self._coordinator
        if coordinator.rounds != self._dealt_rounds:
            self._dealt_rounds = coordinator.rounds
            self._event_log.extend(
                self._core_news.look(coordinator.counters.core_steps, self._orders.obstacle, self._now)
            )
            self._members.detach_unsent()
            self._remove_excess_workers()
        self._orders.send_tickets(self._now)
        coordinator.stopwatch.lap("dealing")
        coordinator.record_rounds()
        self._event_log.extend(coordinator.pop_events())
        if coordinator.over:
            self._end()
        self._checkpoint_requests.take_if_due(coordinator, self._now)
        coordinator.stopwatch.lap("booking")

    def _end(self) -> None:
        """Disconnects all workers, and reports why the training ended; once."""
        if self._event_log.ended:
            return
        coordinator = self._coordinator
        self._orders.end_run()
        self._members.disconnect_all("")
        if coordinator.diverged:
            end = ps_pb.TrainingEvent(diverged=coordinator.failure)
        elif coordinator.failure:
            end = ps_pb.TrainingEvent(failed=coordinator.failure)
        else:
            end = ps_pb.TrainingEvent(finished=coordinator.ending)
        self._event_log.append(end)

    # -- members -------------------------------------------------------------------------------------------------------

    def _add_worker(self, member: Member) -> None:
        if self._coordinator.over or not self._bridge.is_open:
            self._bridge.call_on_loop(member.gone.set)
            return
        self._members.add_member(member, partial(self._serve_connection, member))
        self._coordinator.add_worker(member.worker)
        # Before the events that its tickets bring about.
        if member.arithmetic:
            self._event_log.append_arithmetic(member.arithmetic)
        self._event_log.append(ps_pb.TrainingEvent(worker_joined=member.arrival))
        self._advance()

    def _remove_worker(self, member: Member) -> None:
        if not self._members.remove_member(member):
            return
        self._orders.withdraw_worker(member.worker)
        self._coordinator.counters.add_worker_seconds(member.seconds)
        if not self._coordinator.over:
            self._event_log.append(ps_pb.TrainingEvent(worker_lost=member.loss))
        self._coordinator.remove_worker(member.worker)
        self._advance()

    def _remove_excess_workers(self) -> None:
        """Removes the newest workers beyond the limit, between two steps."""
        if self._most_members is None or len(self._members) <= self._most_members:
            return
        for member in self._members.excess(self._most_members):
            self._members.remove_member(member)
            self._coordinator.counters.add_worker_seconds(member.seconds)
            self._coordinator.remove_worker(member.worker, lost=False)
            left = f"{member.worker} left: there were more workers than the {self._most_members} that are wanted"
            self._event_log.append(ps_pb.TrainingEvent(worker_left=left))
