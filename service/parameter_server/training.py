"""The training of one attempt as a state machine: results in, tickets and weights out. No gRPC, threads or files."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.image import Snapshot
from service.parameter_server.progress.accounting import EpochAccounting, Next
from service.parameter_server.progress.advice import Advice
from service.parameter_server.progress.attempt_statistics import ACTIVITIES
from service.parameter_server.progress.step_statistics import RoundTimer
from service.parameter_server.progress.stopping import StoppingRules
from service.parameter_server.progress.tracker import Position, ProgressTracker
from service.parameter_server.scheduling.dispatcher import Dispatcher
from service.parameter_server.scheduling.ledger import Ledger
from service.parameter_server.scheduling.rounds import Round, RoundQueue, SchedulingPolicy
from service.parameter_server.shard.reduction import GradientBuffers
from service.parameter_server.shard.weights import Norms, Weights
from workers.mathematics.optimizers import Optimizer
from workers.plan import Plan
from workers.runtime.failpoints import failpoint
from workers.runtime.process_statistics import Stopwatch
from workers.transport.tickets import Rejection, Result, Ticket, TicketKind

__all__ = ["Training"]

Vector = NDArray[np.floating]

# Seconds between two measurements of the gradient's norm: it is not worth a pass over the gradient at every step.
_NORM_INTERVAL = 0.5
# Seconds between two measurements of the weights' norms, which change more slowly.
_WEIGHT_NORM_INTERVAL = 5.0


class Training:
    """The weights of an attempt, and the rounds that change them.

    Attributes:
        parameters: The weights, a flat vector of shape (size,).
        version: Number of updates that the weights have seen.
        rounds: Number of steps and evaluations that this attempt has made.
        failure: Sentence, why the training cannot go on; empty while it can.
        diverged: Whether it failed because its numbers are not finite, so that it would end so again.
        lag: Time from the first result of a round to the last one that was accepted, in seconds.
        counters: Running totals since the beginning of the attempt.
        steps: Statistics of the steps of the attempt.
        buffers: Pool of gradients; a buffer that is lent for a result comes back with it.
        stopwatch: Seconds by activity.
    """

    def __init__(
        self,
        plan: Plan,
        policy: SchedulingPolicy,
        optimizer: Optimizer,
        start: Snapshot,
        layer_starts: Sequence[int],
        rules: StoppingRules,
        *,
        attempt: int,
        labelled: bool,
        advice: Advice,
        clock: Callable[[], float],
    ) -> None:
        """Opens the round that comes next; nothing moves until workers are added.

        Args:
            plan: The cut of the rows into tickets.
            policy: Decides when the tickets of a step may go out.
            optimizer: The update rule.
            start: State that the attempt begins with; its vectors are owned from now on.
            layer_starts: Index in the vectors of the first number of each layer.
            rules: Rules that end the training.
            attempt: Number of the attempt; results of other attempts are rejected.
            labelled: Whether targets are class labels, so that there is an accuracy.
            advice: Advice for numbers that grow beyond all bounds.
            clock: Monotonic seconds.
        """
        state = start.state
        self.parameters = start.parameters
        self.version = state.step
        self.rounds = 0
        self.failure = ""
        self.diverged = False
        self.lag = 0.0
        self.buffers = GradientBuffers(start.parameters.size, start.parameters.dtype)
        self.stopwatch = Stopwatch(ACTIVITIES, clock)
        self._plan = plan
        self._timer = RoundTimer(self.stopwatch)
        self._weights = Weights(optimizer, start, layer_starts, keep_best=rules.keep_best)
        tracker = ProgressTracker(
            plan, state, attempt=attempt, learning_rate=optimizer.learning_rate, labelled=labelled
        )
        self._accounting = EpochAccounting(plan, self._weights, tracker, rules, state, advice)
        self.counters = self._accounting.counters
        self.steps = self._accounting.steps
        self._advice = advice
        self._divergence = f"the training diverged; {advice.remedy}"
        self._dispatcher = Dispatcher()
        self._ledger = Ledger(attempt, plan, self._dispatcher, self.parameters, self._explain)
        self._norm_time = self._weight_norm_time = -math.inf
        self._borrowed: dict[str, tuple[Round, Vector]] = {}  # gradients in memory of their workers
        self._queue = RoundQueue(plan, policy, self.buffers, self.version, evaluated=state.evaluated)
        self._open_rounds(self._accounting.start_attempt(self.version, evaluated=state.evaluated))
        self.record_rounds()

    @property
    def ending(self) -> str:
        """Sentence, why the training ended; empty while it goes on."""
        return self._accounting.ending

    @property
    def over(self) -> bool:
        """True if there will be no more tickets."""
        return bool(self._accounting.ending or self.failure)

    @property
    def position(self) -> Position:
        """Position of the training after the rounds that are recorded."""
        return self._accounting.position

    @property
    def result(self) -> Vector:
        """Weights that the training leaves: those of the best epoch if they are kept, else the present ones."""
        return self._weights.result

    @property
    def rejected(self) -> dict[Rejection, int]:
        """Number of rejected results, by reason."""
        return self._ledger.rejected

    def add_worker(self, worker: str) -> None:
        """Adds a worker, which gets tickets from now on."""
        if not self._dispatcher.workers and not self.rounds:
            self.stopwatch.lap("waiting")
            self._timer.start_round()
        self._dispatcher.add_worker(worker)

    def remove_worker(self, worker: str, *, lost: bool = True) -> None:
        """Removes a worker; its tickets go to others. A lost one is counted, unless the training is over."""
        self._detach_gradient(worker)
        self._dispatcher.remove_worker(worker)
        if lost and not self.over:
            self.counters.workers_lost += 1

    def holds_tickets(self, worker: str) -> bool:
        """Returns whether the worker has a ticket to answer."""
        return self._dispatcher.holds_tickets(worker)

    @property
    def has_pending_work(self) -> bool:
        """True if there are tickets to deal, rounds to record, or an end to report."""
        return self._accounting.has_unrecorded_rounds or self.over or self._dispatcher.waiting > 0

    def deal_tickets(self) -> dict[str, list[Ticket]]:
        """Deals tickets to the free workers, by worker; they are for the present version."""
        dealt = {} if self.failure else self._dispatcher.deal_tickets()
        for worker in dealt:
            self._detach_gradient(worker)
        return dealt

    def accept_result(
        self, worker: str, attempt: int, result: Result, computed: float = 0.0, now: float = 0.0
    ) -> Rejection | None:
        """Accepts a result if the ledger admits it; a round that it completes is applied at once.

        Args:
            worker: Name of the worker that sent it.
            attempt: Number of the attempt that it belongs to.
            result: Its gradient is owned from now on. A borrowed one may change as soon as the worker has another
                ticket.
            computed: Seconds that the worker computed, as it reports; for statistics only.
            now: Time of its arrival, in monotonic seconds; for statistics only.

        Returns:
            The reason if it is rejected, else None.
        """
        round_ = self._queue.find(result.ticket)
        rejection = self._ledger.admit(worker, attempt, result, round_, self.version)
        self.stopwatch.lap("inspecting")
        if rejection is None and round_ is not None:
            self.lag = round_.add_result(result, worker, computed, now)
            self._complete_ticket(worker, result, round_)
        elif rejection:
            self._reject_result(worker, result.ticket, rejection)
            self.buffers.return_buffer(result.gradient)
        return rejection

    def record_rounds(self) -> None:
        """Records the rounds that were closed.

        That can wait until the next tickets are out, but not for another `accept_result`.
        """
        if failure := self._accounting.record_rounds(self._dispatcher.workers):
            self.failure, self.diverged = f"{failure}: {self._divergence}", True

    def pop_events(self) -> list[ps_pb.TrainingEvent]:
        """Returns the events that were recorded since the last call: sampled steps, ends of epochs, warnings."""
        return self._accounting.pop_events()

    def progress(self) -> jobs_pb.Progress:
        """Returns the progress of the training."""
        return self._accounting.progress(self._dispatcher.workers)

    def snapshot(self) -> Snapshot:
        """Returns all that it takes to go on from here, in arrays that change with the next result.

        Rounds must be recorded. Results of a round that is not complete are no part of it.
        """
        return self._accounting.snapshot()

    # -- results -------------------------------------------------------------------------------------------------------

    def _complete_ticket(self, worker: str, result: Result, round_: Round) -> None:
        """Completes the ticket of an accepted result, remembers a borrowed gradient, and closes complete rounds."""
        self._dispatcher.complete_ticket(worker, result.ticket)
        if result.gradient is not None and not result.gradient.flags.writeable:
            self._borrowed[worker] = (round_, result.gradient)
            if self.holds_tickets(worker):
                self._detach_gradient(worker)
        self.stopwatch.lap("reducing")
        while complete := self._queue.pop_complete():
            self._open_rounds(self._close_round(complete))

    def _detach_gradient(self, worker: str) -> None:
        """Detaches the gradient that is borrowed from a worker, because the worker writes to its memory next."""
        if borrowed := self._borrowed.pop(worker, None):
            round_, gradient = borrowed
            round_.detach_gradient(gradient)

    def _reject_result(self, worker: str, ticket: Ticket, rejection: Rejection) -> None:
        """Has the ledger count the rejection; fails the training when it was one too many."""
        if self._ledger.reject(worker, ticket, rejection) and not self.failure:
            self.failure = self._ledger.failure_reason(ticket, rejection)
            self.diverged = rejection == Rejection.NOT_FINITE

    def _explain(self, ticket: Ticket) -> str:
        return self._advice.explain(ticket, self.parameters) or self._divergence

    # -- rounds --------------------------------------------------------------------------------------------------------

    def _open_rounds(self, following: Next) -> None:
        """Opens the rounds that may be open now, and gives their tickets to the dispatcher."""
        if following != Next.PLAN:
            self._queue.cut(self.version, evaluate=following == Next.EVALUATION)
        for round_ in self._queue.open_rounds(self.version):
            self._dispatcher.add_tickets(Ticket(round_.step, round_.kind, part) for part in range(round_.parts))

    def _close_round(self, round_: Round) -> Next:
        self._ledger.forget_tickets()
        self._borrowed = {worker: entry for worker, entry in self._borrowed.items() if entry[0] is not round_}
        norms = self._apply(round_) if round_.kind == TicketKind.GRADIENT else None
        self.rounds += 1
        return self._accounting.close_round(round_, self._timer.end_round(round_.kind), norms)

    def _apply(self, round_: Round) -> Norms | None:
        """Updates the weights; returns the norms at the steps where they are measured."""
        begun = self._timer.begun
        due = begun - self._norm_time >= _NORM_INTERVAL
        measure = due or self._plan.is_checked(round_.step)
        measure_weights = measure and begun - self._weight_norm_time >= _WEIGHT_NORM_INTERVAL
        norms = self._weights.update(
            round_.addends, round_.samples, with_norms=measure, with_weight_norms=measure_weights
        )
        if measure:
            self._norm_time = begun
        if measure_weights:
            self._weight_norm_time = begun
        for vector in round_.addends:
            self.buffers.return_buffer(vector)
        self.version += 1
        self.stopwatch.lap("updating")
        failpoint("ps.updated")
        return norms
