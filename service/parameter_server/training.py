"""The training of one attempt as a state machine: results in, tickets and weights out. No gRPC, threads or files."""

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nablad.spec import name_of
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.dispatcher import Dispatcher, TicketKey
from service.parameter_server.inspection import inspect
from service.parameter_server.policies import Policy
from service.parameter_server.rounds import Round, RoundQueue
from service.parameter_server.telemetry import EpochFigures, Totals
from workers.mathematics.optimizers import Optimizer
from workers.plan import Plan

__all__ = ["Training"]

Vector = NDArray[np.floating]

# A ticket whose results are refused this often fails the job: the answer to a ticket depends on nothing but the ticket.
_TRIES = 3
# Seconds between two looks at the gradient's norm: it is not worth a pass over the gradient at every step.
_NORM_INTERVAL = 0.5


class Training:
    """The weights of an attempt and the only code that changes them.

    Attributes:
        parameters: The weights, a flat vector of shape (size,).
        version: Updates that the weights have seen.
        failure: Why the training cannot go on, as a sentence; empty while it can.
        totals: What was counted since the beginning.
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
        self._plan = plan
        self._optimizer = optimizer
        self._optimizer_state = optimizer.init(parameters)
        self._attempt = attempt
        self._learning_rate = learning_rate
        self._labelled = labelled
        self._clock = clock
        self._mark = clock()
        self._dispatcher = Dispatcher()
        self._refusals: Counter[TicketKey] = Counter()
        self._figures = EpochFigures(epoch=0)
        self._validation: Round | None = None
        self._gradient_norm: float | None = None
        self._norm_time = -math.inf
        self._epoch_ends: list[jobs_pb.Progress] = []
        self._queue = RoundQueue(plan, policy)
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
        self._dispatcher.leave(worker)
        if not self.over:
            self.totals.workers_lost += 1

    def deal(self) -> dict[str, list[ps_pb.Ticket]]:
        """The tickets that free workers get now, by worker."""
        if self.failure:
            return {}
        return {worker: [self._ticket(key) for key in keys] for worker, keys in self._dispatcher.deal().items()}

    def take(self, worker: str, attempt: int, result: ps_pb.Result) -> ps_pb.Acknowledgement:
        """Checks a result and enters it, or says why not. A round that it completes is applied at once."""
        round_ = self._queue.find(result.ticket)
        if attempt != self._attempt:
            return self._refuse(worker, result.ticket, ps_pb.REFUSAL_WRONG_ATTEMPT)
        if round_ is None:
            late = self._was_given_out(result.ticket)
            return self._refuse(worker, result.ticket, ps_pb.REFUSAL_LATE if late else ps_pb.REFUSAL_UNKNOWN_TICKET)
        if refusal := inspect(result, round_, self.parameters, self.version):
            return self._refuse(worker, result.ticket, refusal)
        self._enter(round_, result)
        return ps_pb.Acknowledgement(accepted=True)

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

    def _enter(self, round_: Round, result: ps_pb.Result) -> None:
        gradient = None
        if round_.kind == ps_pb.TICKET_KIND_GRADIENT:
            gradient = np.frombuffer(result.gradient, self.parameters.dtype).copy()
        self._dispatcher.done(TicketKey.of(result.ticket))
        round_.take(result, gradient)
        while complete := self._queue.pop_complete():
            self._close(complete)
            self._open_rounds()

    def _refuse(self, worker: str, ticket: ps_pb.Ticket, refusal: ps_pb.Refusal.ValueType) -> ps_pb.Acknowledgement:
        """Counts the refusal; a ticket that the worker holds waits again."""
        self.totals.refused[refusal] += 1
        key = TicketKey.of(ticket)
        if self._dispatcher.give_back(worker, key):
            self._refusals[key] += 1
            if self._refusals[key] >= _TRIES:
                self.failure = self._refusal_sentence(ticket, refusal)
        return ps_pb.Acknowledgement(accepted=False, refusal=refusal)

    def _refusal_sentence(self, ticket: ps_pb.Ticket, refusal: ps_pb.Refusal.ValueType) -> str:
        what = f"micro-batch {ticket.micro_batch} of step {ticket.step} in epoch {ticket.epoch + 1}"
        if refusal == ps_pb.REFUSAL_NOT_FINITE:
            return f"the cost or the gradient of {what} is not finite: {self._divergence()}"
        name = name_of(ps_pb.Refusal.DESCRIPTOR, refusal)
        return f"the results for {what} were refused {_TRIES} times, the last one as {name}"

    def _divergence(self) -> str:
        return (
            f"the training diverged; give a training.learning_rate below {self._learning_rate:g}, "
            "and data.scaling if features are large"
        )

    def _was_given_out(self, ticket: ps_pb.Ticket) -> bool:
        """Whether the ticket is of a round that was closed."""
        parts = 0
        if ticket.kind == ps_pb.TICKET_KIND_GRADIENT and ticket.step < self.version:
            parts = self._plan.parts(ticket.step)
        elif ticket.kind == ps_pb.TICKET_KIND_EVALUATION and 0 < ticket.step <= self.version:
            parts = self._plan.evaluation_parts if self._plan.ends_epoch(ticket.step - 1) else 0
        return ticket.micro_batch < parts

    # -- rounds --------------------------------------------------------------------------------------------------------

    def _open_rounds(self) -> None:
        for round_ in self._queue.open(self.version):
            self._dispatcher.open(TicketKey(round_.step, round_.kind, part) for part in range(round_.parts))

    def _close(self, round_: Round) -> None:
        self._refusals.clear()
        if round_.kind == ps_pb.TICKET_KIND_GRADIENT:
            self._apply(round_)
        else:
            self._validation = round_
        self._mark = self._clock()
        if self._plan.ends_epoch(self.version - 1) and not self._queue.evaluation_comes:
            self._end_epoch()

    def _apply(self, round_: Round) -> None:
        """W ← W − ε ∇ with ∇ the mean over the mini-batch: eq. (94) of the paper, and the 1/n of its eq. (37)."""
        gradient = round_.gradient
        assert gradient is not None  # noqa: S101 (a complete round has its sum; the type checker cannot know)
        gradient /= gradient.dtype.type(round_.samples)
        if self._mark - self._norm_time >= _NORM_INTERVAL or self._plan.ends_epoch(round_.step):
            self._gradient_norm, self._norm_time = float(np.linalg.norm(gradient)), self._mark
        self._optimizer_state = self._optimizer.update(self.parameters, gradient, self._optimizer_state)
        self.version += 1
        self._count(round_, self._clock() - self._mark)

    def _count(self, round_: Round, seconds: float) -> None:
        if round_.epoch != self._figures.epoch:
            self._figures = EpochFigures(round_.epoch)
        self._figures.add(round_, seconds)
        self.totals.add_step(round_, seconds)

    def _end_epoch(self) -> None:
        if not np.isfinite(self.parameters).all():
            self.failure = f"the weights are not finite after epoch {self._figures.epoch + 1}: {self._divergence()}"
        self._epoch_ends.append(self.progress())

    def _ticket(self, key: TicketKey) -> ps_pb.Ticket:
        epoch = self._plan.epoch(key.step - (key.kind == ps_pb.TICKET_KIND_EVALUATION))
        return ps_pb.Ticket(kind=key.kind, epoch=epoch, step=key.step, micro_batch=key.part, version=self.version)
