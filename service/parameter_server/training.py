"""The training of one attempt as a state machine: results in, tickets and weights out. No gRPC, threads or files."""

import math
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from nablad.v1 import jobs_pb2 as jobs_pb
from service.parameter_server.dispatcher import Dispatcher
from service.parameter_server.inspection import all_finite, inspect
from service.parameter_server.policies import Policy
from service.parameter_server.reduction import Buffers
from service.parameter_server.rounds import Round, RoundQueue
from service.parameter_server.telemetry import ACTIVITIES, EpochFigures, Totals
from workers.mathematics.optimizers import Block, Optimizer
from workers.plan import Plan
from workers.stopwatch import Stopwatch
from workers.tickets import Refusal, Result, Ticket, TicketKind

__all__ = ["Training"]

Vector = NDArray[np.floating]

# A ticket whose results are refused this often fails the job: the answer to a ticket depends on nothing but the ticket.
_TRIES = 3
# Seconds between two looks at the gradient's norm: it is not worth a pass over the gradient at every step.
_NORM_INTERVAL = 0.5
# Numbers that are added and applied at a time, so that they stay in the cache from the sum to the update.
_BLOCK = 128 * 1024


class Training:
    """The weights of an attempt and the only code that changes them.

    Attributes:
        parameters: The weights, a flat vector of shape (size,).
        version: Updates that the weights have seen.
        failure: Why the training cannot go on, as a sentence; empty while it can.
        totals: What was counted since the beginning.
        buffers: Of gradients; what is taken for a result comes back with it.
        stopwatch: Where the time goes.
    """

    def __init__(
        self,
        plan: Plan,
        policy: Policy,
        optimizer: Optimizer,
        parameters: Vector,
        *,
        attempt: int,
        learning_rate: float,
        labelled: bool,
        clock: Callable[[], float],
    ) -> None:
        """Opens the first round; nothing moves until workers join.

        Args:
            plan: The cut of the rows into tickets.
            policy: When the tickets of a step may go out.
            optimizer: The update rule.
            parameters: The first weights, taken over.
            attempt: Results of other attempts are refused.
            learning_rate: Only reported.
            labelled: Whether targets are class labels, so that there is an accuracy.
            clock: Monotonic seconds.
        """
        self.parameters = parameters
        self.version = 0
        self.failure = ""
        self.totals = Totals()
        self.buffers = Buffers(parameters.size, parameters.dtype)
        self.stopwatch = Stopwatch(ACTIVITIES, clock)
        self._plan = plan
        self._optimizer = optimizer
        self._optimizer_state = optimizer.init(parameters)
        self._attempt = attempt
        self._learning_rate = learning_rate
        self._labelled = labelled
        self._clock = clock
        self._mark = clock()
        self._dispatcher = Dispatcher()
        self._refusals: Counter[Ticket] = Counter()
        self._figures = EpochFigures(epoch=0)
        self._validation: Round | None = None
        self._gradient_norm: float | None = None
        self._norm_time = -math.inf
        self._lent: dict[str, tuple[Round, Vector]] = {}  # gradients in memory that their workers write to again
        self._sum = np.empty(min(_BLOCK, parameters.size), parameters.dtype)
        self._blocks = [slice(start, start + _BLOCK) for start in range(0, parameters.size, _BLOCK)]
        self._closed: list[tuple[Round, float]] = []  # with their seconds, not counted yet
        self._epoch_ends: list[jobs_pb.Progress] = []
        self._queue = RoundQueue(plan, policy, self.buffers)
        self._open_rounds()

    @property
    def finished(self) -> bool:
        """Whether the last round is complete."""
        return self._queue.finished

    @property
    def over(self) -> bool:
        """Whether there will be no more tickets."""
        return self.finished or bool(self.failure)

    def join(self, worker: str) -> None:
        """A worker is ready for tickets."""
        if not self._dispatcher.workers and not self.version:
            self._mark = self._clock()
        self._dispatcher.join(worker)

    def leave(self, worker: str) -> None:
        """A worker is gone; its open tickets go to others. It counts as lost unless the training is over."""
        self._settle(worker)
        self._dispatcher.leave(worker)
        if not self.over:
            self.totals.workers_lost += 1

    def holds(self, worker: str) -> bool:
        """Whether the worker has a ticket yet to answer."""
        return self._dispatcher.holds(worker)

    @property
    def stirred(self) -> bool:
        """Whether there is something to deal, to book or to tell."""
        return bool(self._closed or self.failure or self._dispatcher.waiting)

    def deal(self) -> dict[str, list[Ticket]]:
        """The tickets that free workers get now, by worker; to be computed with the present version."""
        dealt = {} if self.failure else self._dispatcher.deal()
        for worker in dealt:
            self._settle(worker)
        return dealt

    def take(self, worker: str, attempt: int, result: Result) -> Refusal | None:
        """Checks a result and enters it, or says why not. A round that it completes is applied at once.

        Its gradient is taken over; one that is lent may be written to as soon as the worker has another ticket.
        """
        round_ = self._queue.find(result.ticket)
        refusal = self._inspect(attempt, result, round_)
        self.stopwatch.lap("inspecting")
        if refusal is None and round_ is not None:
            self._enter(worker, result, round_)
        elif refusal:
            self._refuse(worker, result.ticket, refusal)
            self.buffers.give(result.gradient)
        return refusal

    def book(self) -> None:
        """Counts the rounds that were closed: it can wait until the next tickets are out, but not for another take."""
        closed, self._closed = self._closed, []
        for round_, seconds in closed:
            if round_.kind == TicketKind.EVALUATION:
                self._validation = round_
                self.totals.add_evaluation(seconds)
            else:
                self._count_step(round_, seconds)
            if round_.kind == TicketKind.EVALUATION or (
                self._plan.ends_epoch(round_.step) and not self._plan.validation_rows
            ):
                self._end_epoch()

    def pop_epoch_ends(self) -> list[jobs_pb.Progress]:
        """The figures of the epochs that ended since the last call."""
        ends, self._epoch_ends = self._epoch_ends, []
        return ends

    def progress(self) -> jobs_pb.Progress:
        """Where the training stands."""
        progress = jobs_pb.Progress(
            epoch=self._figures.epoch + 1 if self._figures.samples else 0,
            epochs=self._plan.epochs,
            step=self.version,
            steps=self._plan.steps,
            samples=self.totals.samples,
            samples_per_second=self._figures.samples_per_second,
            training_cost=self._figures.cost,
            learning_rate=self._learning_rate,
            gradient_norm=self._gradient_norm,
            workers_alive=self._dispatcher.workers,
        )
        if self._labelled and self._figures.accuracy is not None:
            progress.training_accuracy = self._figures.accuracy
        if self._validation is not None:
            progress.validation_cost = self._validation.cost_sum / self._validation.samples
            if self._labelled:
                progress.validation_accuracy = self._validation.correct_count / self._validation.samples
        return progress

    # -- results -------------------------------------------------------------------------------------------------------

    def _inspect(self, attempt: int, result: Result, round_: Round | None) -> Refusal | None:
        if attempt != self._attempt:
            return Refusal.WRONG_ATTEMPT
        if round_ is None:
            return Refusal.LATE if self._was_given_out(result.ticket) else Refusal.UNKNOWN_TICKET
        return inspect(result, round_, self.parameters, self.version)

    def _enter(self, worker: str, result: Result, round_: Round) -> None:
        self._dispatcher.done(result.ticket)
        round_.take(result)
        if result.gradient is not None and not result.gradient.flags.writeable:
            self._lent[worker] = (round_, result.gradient)
            if self.holds(worker):
                self._settle(worker)
        self.stopwatch.lap("reducing")
        while complete := self._queue.pop_complete():
            self._close(complete)
            self._open_rounds()

    def _settle(self, worker: str) -> None:
        """The worker may write to its gradient again."""
        if lent := self._lent.pop(worker, None):
            round_, gradient = lent
            round_.settle(gradient)

    def _refuse(self, worker: str, ticket: Ticket, refusal: Refusal) -> None:
        """Counts the refusal; a ticket that the worker holds waits again."""
        self.totals.refused[refusal] += 1
        if self._dispatcher.give_back(worker, ticket):
            self._refusals[ticket] += 1
            if self._refusals[ticket] >= _TRIES:
                self.failure = self._refusal_sentence(ticket, refusal)

    def _refusal_sentence(self, ticket: Ticket, refusal: Refusal) -> str:
        epoch = self._plan.epoch(ticket.step - (ticket.kind == TicketKind.EVALUATION))
        what = f"micro-batch {ticket.micro_batch} of step {ticket.step} in epoch {epoch + 1}"
        if refusal == Refusal.NOT_FINITE:
            return f"the cost or the gradient of {what} is not finite: {self._divergence()}"
        return f"the results for {what} were refused {_TRIES} times, the last one as {refusal.name.lower()}"

    def _divergence(self) -> str:
        return (
            f"the training diverged; give a training.learning_rate below {self._learning_rate:g}, "
            "and data.scaling if features are large"
        )

    def _was_given_out(self, ticket: Ticket) -> bool:
        """Whether the ticket is of a round that was closed."""
        parts = 0
        if ticket.kind == TicketKind.GRADIENT and ticket.step < self.version:
            parts = self._plan.parts(ticket.step)
        elif ticket.kind == TicketKind.EVALUATION and 0 < ticket.step <= self.version:
            parts = self._plan.evaluation_parts if self._plan.ends_epoch(ticket.step - 1) else 0
        return ticket.micro_batch < parts

    # -- rounds --------------------------------------------------------------------------------------------------------

    def _open_rounds(self) -> None:
        for round_ in self._queue.open(self.version):
            self._dispatcher.open(Ticket(round_.step, round_.kind, part) for part in range(round_.parts))

    def _close(self, round_: Round) -> None:
        self._refusals.clear()
        self._lent = {worker: lent for worker, lent in self._lent.items() if lent[0] is not round_}
        if round_.kind == TicketKind.GRADIENT:
            self._apply(round_)
        now = self._clock()
        self._closed.append((round_, now - self._mark))
        self._mark = now

    def _apply(self, round_: Round) -> None:
        """W ← W − ε ∇ with ∇ the mean over the mini-batch: eq. (94) of the paper, and the 1/n of its eq. (37)."""
        norm_due = self._mark - self._norm_time >= _NORM_INTERVAL or self._plan.ends_epoch(round_.step)
        squares: list[float] | None = [] if norm_due else None
        blocks = self._gradient_blocks(round_.addends, squares)
        self._optimizer_state = self._optimizer.update(self.parameters, blocks, round_.samples, self._optimizer_state)
        if squares is not None:
            self._gradient_norm, self._norm_time = math.sqrt(math.fsum(squares)) / round_.samples, self._mark
        for vector in round_.addends:
            self.buffers.give(vector)
        self.version += 1
        self.stopwatch.lap("updating")

    def _gradient_blocks(self, addends: tuple[Vector, ...], squares: list[float] | None) -> Iterator[Block]:
        """The sum of the samples' gradients; the squares of each block are added to the list, if there is one."""
        for place in self._blocks:
            first = addends[0][place]
            total = self._sum[: first.size]
            if len(addends) == 2:
                np.add(first, addends[1][place], out=total)
            else:
                np.copyto(total, first)
            if squares is not None:
                squares.append(float(np.dot(total, total)))
            yield place, total

    def _count_step(self, round_: Round, seconds: float) -> None:
        if round_.epoch != self._figures.epoch:
            self._figures = EpochFigures(round_.epoch)
        self._figures.add(round_, seconds)
        self.totals.add_step(round_, seconds)

    def _end_epoch(self) -> None:
        if not all_finite(self.parameters):
            self.failure = f"the weights are not finite after epoch {self._figures.epoch + 1}: {self._divergence()}"
        self._epoch_ends.append(self.progress())
