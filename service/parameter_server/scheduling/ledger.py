"""Ledger: the one answer to "may this result count?", and the count of the results that may not."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Final

from service.parameter_server.scheduling.dispatcher import Dispatcher
from service.parameter_server.scheduling.policies import SchedulingPolicy
from service.parameter_server.scheduling.rounds import Round
from workers.plan import Plan
from workers.transport.tickets import Gradient, Rejection, Result, Ticket, TicketKind

__all__ = ["Ledger"]

# A ticket whose results are rejected this often fails the job: the result of a ticket depends on the ticket alone.
_MOST_REJECTIONS: Final = 3


class Ledger:
    """Admits or rejects results, and gives rejected tickets back to the dispatcher. Changes no vector.

    Attributes:
        rejected: Results that were rejected in this attempt, by reason.
    """

    def __init__(
        self,
        attempt: int,
        plan: Plan,
        policy: SchedulingPolicy,
        dispatcher: Dispatcher,
        validate_gradient: Callable[[Gradient | None], Rejection | None],
        explain: Callable[[Ticket], str],
    ) -> None:
        """Starts without rejections.

        Args:
            attempt: Number of the attempt; results of others are rejected.
            plan: Plan of the job.
            policy: Decides of which weights a result may be.
            dispatcher: Knows which worker holds which ticket.
            validate_gradient: Returns the shard's reason against a gradient.
            explain: Returns why the result of a ticket is not finite, and what to do.
        """
        self.rejected: Counter[Rejection] = Counter()
        self._attempt = attempt
        self._plan = plan
        self._policy = policy
        self._dispatcher = dispatcher
        self._validate_gradient = validate_gradient
        self._explain = explain
        self._rejections: Counter[Ticket] = Counter()  # of the open rounds, by ticket

    def admit(self, worker: str, attempt: int, result: Result, round_: Round | None, version: int) -> Rejection | None:
        """Decides whether a result may count.

        Args:
            worker: Name of the worker that sent it.
            attempt: Number of the attempt that it belongs to.
            result: The result.
            round_: Open round of its ticket; None if no open round has this ticket.
            version: Present version of the weights.

        Returns:
            The first reason against it; None if it may count.
        """
        if attempt != self._attempt:
            return Rejection.WRONG_ATTEMPT
        if round_ is None:
            return Rejection.LATE if self._is_closed(result.ticket, version) else Rejection.UNKNOWN_TICKET
        if round_.has_result(result.ticket.micro_batch):
            return Rejection.DUPLICATE
        if not self._dispatcher.holds_ticket(worker, result.ticket):
            return Rejection.NOT_HELD
        return self._check_contents(result, round_, version)

    def reject(self, worker: str, ticket: Ticket, rejection: Rejection) -> bool:
        """Counts a rejected result; a ticket that the worker holds waits again.

        Returns:
            Whether the ticket was rejected so often that the training cannot go on: see `failure_reason`.
        """
        self.rejected[rejection] += 1
        if not self._dispatcher.return_ticket(worker, ticket):
            return False
        self._rejections[ticket] += 1
        return self._rejections[ticket] >= _MOST_REJECTIONS

    def forget_tickets(self) -> None:
        """Forgets the rejections of the open rounds, because they are complete."""
        self._rejections.clear()

    def failure_reason(self, ticket: Ticket, rejection: Rejection) -> str:
        """Returns a sentence: why the training cannot go on after the last rejection of this ticket."""
        epoch = self._plan.epoch(ticket.step - (ticket.kind == TicketKind.EVALUATION))
        what = f"micro-batch {ticket.micro_batch} of step {ticket.step} in epoch {epoch + 1}"
        if rejection == Rejection.NOT_FINITE:
            return f"the cost or the gradient of {what} is not finite: {self._explain(ticket)}"
        return (
            f"the results for {what} were rejected {_MOST_REJECTIONS} times, the last one as {rejection.name.lower()}"
        )

    def _check_contents(self, result: Result, round_: Round, version: int) -> Rejection | None:
        if not self._policy.accepts(result.version, version):
            return Rejection.WRONG_VERSION
        if not result.sums.can_be_of(round_.part_samples[result.ticket.micro_batch]):
            return Rejection.WRONG_COUNT
        if not math.isfinite(result.sums.cost_sum):
            return Rejection.NOT_FINITE
        return self._validate_gradient(result.gradient) if round_.kind == TicketKind.GRADIENT else None

    def _is_closed(self, ticket: Ticket, version: int) -> bool:
        """Returns whether the ticket belongs to a round that was closed before."""
        parts = 0
        if ticket.kind == TicketKind.GRADIENT and ticket.step < version:
            parts = self._plan.parts(ticket.step)
        elif ticket.kind == TicketKind.EVALUATION and 0 < ticket.step <= version:
            parts = self._plan.evaluation_parts if self._plan.ends_epoch(ticket.step - 1) else 0
        return ticket.micro_batch < parts
