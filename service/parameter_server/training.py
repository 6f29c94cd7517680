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
from service.parameter_server.progress.step_statistics import RoundTimer
from service.parameter_server.progress.stopping import StoppingRules
from service.parameter_server.progress.telemetry import ACTIVITIES
from service.parameter_server.progress.tracker import Position, ProgressTracker
from service.parameter_server.scheduling.dispatcher import Dispatcher
from service.parameter_server.scheduling.policies import Policy
from service.parameter_server.scheduling.rejections import RejectionCounter
from service.parameter_server.scheduling.rounds import Round, RoundQueue
from service.parameter_server.scheduling.validation import validate_result
from service.parameter_server.shard.reduction import Buffers
from service.parameter_server.shard.weights import Norms, Weights
from workers.mathematics.optimizers import Optimizer
from workers.plan import Plan
from workers.runtime.failpoints import failpoint
from workers.runtime.stopwatch import Stopwatch
from workers.transport.tickets import Rejection, Result, Ticket, TicketKind

__all__ = ["Training"]

Vector = NDArray[np.floating]

# Seconds between two looks at the gradient's norm: it is not worth a pass over the gradient at every step.
_NORM_INTERVAL = 0.5
# And at the weights' norms, which change more slowly.
_WEIGHT_NORM_INTERVAL = 5.0


class Training:
    """The weights of an attempt, and what becomes of them.

    Attributes:
        parameters: The weights, a flat vector of shape (size,).
        version: Updates that the weights have seen.
        rounds: Steps and evaluations that this attempt has made.
        failure: Why it cannot go on, as a sentence; empty while it can.
        diverged: Whether that is because its numbers are not finite, so that it would end so again.
        lag: How long after the first result of its round the last one came that was taken, in seconds.
        totals: What was counted since the beginning of the attempt.
        steps: What the steps of the attempt are like.
        buffers: Of gradients; what is taken for a result comes back with it.
        stopwatch: Where the time goes.
    """

    def __init__(
        self,
        plan: Plan,
        policy: Policy,
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
        """Opens the round that comes next; nothing moves until workers join.

        Args:
            plan: The cut of the rows into tickets.
            policy: When the tickets of a step may go out.
            optimizer: The update rule.
            start: Where the training stands; its vectors are taken over.
            layer_starts: Where in the vectors the numbers of each layer begin.
            rules: When to end.
            attempt: Results of other attempts are refused.
            labelled: Whether targets are class labels, so that there is an accuracy.
            advice: What to say of numbers that grow beyond all bounds.
            clock: Monotonic seconds.
        """
        state = start.state
        self.parameters = start.parameters
        self.version = state.step
        self.rounds = 0
        self.failure = ""
        self.diverged = False
        self.lag = 0.0
        self.buffers = Buffers(start.parameters.size, start.parameters.dtype)
        self.stopwatch = Stopwatch(ACTIVITIES, clock)
        self._plan = plan
        self._attempt = attempt
        self._timer = RoundTimer(self.stopwatch)
        self._weights = Weights(optimizer, start, layer_starts, keep_best=rules.keep_best)
        standing = ProgressTracker(
            plan, state, attempt=attempt, learning_rate=optimizer.learning_rate, labelled=labelled
        )
        self._course = EpochAccounting(plan, self._weights, standing, rules, state, advice)
        self.totals = self._course.totals
        self.steps = self._course.steps
        self._dispatcher = Dispatcher()
        self._advice = advice
        self._divergence = f"the training diverged; {advice.remedy}"
        self._refusals = RejectionCounter(plan, self._explain)
        self._norm_time = self._weight_norm_time = -math.inf
        self._lent: dict[str, tuple[Round, Vector]] = {}  # gradients in memory that their workers write to again
        self._queue = RoundQueue(plan, policy, self.buffers, self.version, evaluated=state.evaluated)
        self._go_on(self._course.begin(self.version, evaluated=state.evaluated))
        self.book()

    @property
    def ending(self) -> str:
        """Why it ended, as a sentence; empty while it goes on."""
        return self._course.ending

    @property
    def over(self) -> bool:
        """Whether there will be no more tickets."""
        return bool(self._course.ending or self.failure)

    @property
    def position(self) -> Position:
        """How far it is; of what was booked."""
        return self._course.position

    @property
    def result(self) -> Vector:
        """The weights that it leaves: those of the best epoch if they are kept, else the present ones."""
        return self._weights.result

    def join(self, worker: str) -> None:
        """A worker is ready for tickets."""
        if not self._dispatcher.workers and not self.rounds:
            self.stopwatch.lap("waiting")
            self._timer.begin()
        self._dispatcher.join(worker)

    def leave(self, worker: str, *, lost: bool = True) -> None:
        """A worker is gone; its open tickets go to others. One that is lost counts, unless the training is over."""
        self._settle(worker)
        self._dispatcher.leave(worker)
        if lost and not self.over:
            self.totals.workers_lost += 1

    def holds(self, worker: str) -> bool:
        """Whether the worker has a ticket yet to answer."""
        return self._dispatcher.holds(worker)

    @property
    def stirred(self) -> bool:
        """Whether there is something to deal, to book or to tell."""
        return self._course.to_count or self.over or self._dispatcher.waiting > 0

    def deal(self) -> dict[str, list[Ticket]]:
        """The tickets that free workers get now, by worker; to be computed with the present version."""
        dealt = {} if self.failure else self._dispatcher.deal()
        for worker in dealt:
            self._settle(worker)
        return dealt

    def take(
        self, worker: str, attempt: int, result: Result, computed: float = 0.0, now: float = 0.0
    ) -> Rejection | None:
        """Checks a result and enters it, or says why not. A round that it completes is applied at once.

        Args:
            worker: Whose it is.
            attempt: That it belongs to.
            result: Its gradient is taken over; one that is lent may be written to as soon as the worker has another
                ticket.
            computed: For how many seconds the worker computed, as it says; only told.
            now: When it came, in monotonic seconds; only told.
        """
        round_ = self._queue.find(result.ticket)
        refusal = self._inspect(worker, attempt, result, round_)
        self.stopwatch.lap("inspecting")
        if refusal is None and round_ is not None:
            self.lag = round_.take(result, worker, computed, now)
            self._go_on_after(worker, result, round_)
        elif refusal:
            self._refuse(worker, result.ticket, refusal)
            self.buffers.give(result.gradient)
        return refusal

    def book(self) -> None:
        """Counts the rounds that were closed: it can wait until the next tickets are out, but not for another take."""
        if failure := self._course.book(self._dispatcher.workers):
            self.failure, self.diverged = f"{failure}: {self._divergence}", True

    def pop_events(self) -> list[ps_pb.TrainingEvent]:
        """What was booked since the last call: steps of the history, the ends of epochs."""
        return self._course.pop_events()

    def progress(self) -> jobs_pb.Progress:
        """Where the training stands."""
        return self._course.progress(self._dispatcher.workers)

    def snapshot(self) -> Snapshot:
        """All that it takes to go on from here, in arrays that change with the next result; to be called after `book`.

        What is in of a round that is not complete is no part of it.
        """
        return self._course.snapshot()

    # -- results -------------------------------------------------------------------------------------------------------

    def _inspect(self, worker: str, attempt: int, result: Result, round_: Round | None) -> Rejection | None:
        if attempt != self._attempt:
            return Rejection.WRONG_ATTEMPT
        if round_ is None:
            return Rejection.LATE if self._was_given_out(result.ticket) else Rejection.UNKNOWN_TICKET
        if round_.is_in(result.ticket.micro_batch):
            return Rejection.DUPLICATE
        if not self._dispatcher.has_given(worker, result.ticket):
            return Rejection.NOT_HELD
        return validate_result(result, round_, self.parameters, self.version)

    def _go_on_after(self, worker: str, result: Result, round_: Round) -> None:
        """The result is in: its ticket is done, and its gradient may be lent. It may have completed rounds."""
        self._dispatcher.done(worker, result.ticket)
        if result.gradient is not None and not result.gradient.flags.writeable:
            self._lent[worker] = (round_, result.gradient)
            if self.holds(worker):
                self._settle(worker)
        self.stopwatch.lap("reducing")
        while complete := self._queue.pop_complete():
            self._go_on(self._close(complete))

    def _settle(self, worker: str) -> None:
        """The worker may write to its gradient again."""
        if lent := self._lent.pop(worker, None):
            round_, gradient = lent
            round_.settle(gradient)

    def _refuse(self, worker: str, ticket: Ticket, refusal: Rejection) -> None:
        """Counts the refusal; a ticket that the worker holds waits again."""
        self.totals.refused[refusal] += 1
        if self._dispatcher.give_back(worker, ticket):
            self.failure = self.failure or self._refusals.add(ticket, refusal)
            self.diverged = self.diverged or self._refusals.diverged

    def _explain(self, ticket: Ticket) -> str:
        return self._advice.explain(ticket, self.parameters) or self._divergence

    def _was_given_out(self, ticket: Ticket) -> bool:
        """Whether the ticket is of a round that was closed."""
        parts = 0
        if ticket.kind == TicketKind.GRADIENT and ticket.step < self.version:
            parts = self._plan.parts(ticket.step)
        elif ticket.kind == TicketKind.EVALUATION and 0 < ticket.step <= self.version:
            parts = self._plan.evaluation_parts if self._plan.ends_epoch(ticket.step - 1) else 0
        return ticket.micro_batch < parts

    # -- rounds --------------------------------------------------------------------------------------------------------

    def _go_on(self, following: Next) -> None:
        """Opens the rounds that may be."""
        if following != Next.PLAN:
            self._queue.cut(self.version, evaluate=following == Next.EVALUATION)
        for round_ in self._queue.open(self.version):
            self._dispatcher.open(Ticket(round_.step, round_.kind, part) for part in range(round_.parts))

    def _close(self, round_: Round) -> Next:
        self._refusals.clear()
        self._lent = {worker: lent for worker, lent in self._lent.items() if lent[0] is not round_}
        norms = self._apply(round_) if round_.kind == TicketKind.GRADIENT else None
        self.rounds += 1
        return self._course.close(round_, self._timer.next(round_.kind), norms)

    def _apply(self, round_: Round) -> Norms | None:
        """Updates the weights; gives the norms at the steps where they are looked at."""
        begun = self._timer.begun
        due = begun - self._norm_time >= _NORM_INTERVAL
        look = due or self._plan.is_checked(round_.step)
        look_at_weights = look and begun - self._weight_norm_time >= _WEIGHT_NORM_INTERVAL
        norms = self._weights.update(round_.addends, round_.samples, with_norms=look, with_weight_norms=look_at_weights)
        if look:
            self._norm_time = begun
        if look_at_weights:
            self._weight_norm_time = begun
        for vector in round_.addends:
            self.buffers.give(vector)
        self.version += 1
        self.stopwatch.lap("updating")
        failpoint("ps.updated")
        return norms
