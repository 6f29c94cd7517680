"""Results that are refused again and again: when there is no point in going on, and what to do then."""

from collections import Counter
from collections.abc import Callable
from typing import Final

from workers.plan import Plan
from workers.transport.tickets import Rejection, Ticket, TicketKind

__all__ = ["RejectionCounter"]

# A ticket whose results are refused this often fails the job: the answer to a ticket depends on nothing but the ticket.
_TRIES: Final = 3


class RejectionCounter:
    """Counts the refusals of the tickets of the open rounds.

    Attributes:
        diverged: Whether the training cannot go on because its numbers are not finite.
    """

    def __init__(self, plan: Plan, explain: Callable[[Ticket], str]) -> None:
        """Nothing was refused yet.

        Args:
            plan: Of the job.
            explain: Says why the result of a ticket is not finite, and what to do.
        """
        self.diverged = False
        self._plan = plan
        self._explain = explain
        self._counts: Counter[Ticket] = Counter()

    def clear(self) -> None:
        """The rounds that were open are complete."""
        self._counts.clear()

    def add(self, ticket: Ticket, refusal: Rejection) -> str:
        """A result for a ticket was refused that its worker held.

        Returns:
            Why the training cannot go on, as a sentence; empty while it can.
        """
        self._counts[ticket] += 1
        return self._sentence(ticket, refusal) if self._counts[ticket] >= _TRIES else ""

    def _sentence(self, ticket: Ticket, refusal: Rejection) -> str:
        epoch = self._plan.epoch(ticket.step - (ticket.kind == TicketKind.EVALUATION))
        what = f"micro-batch {ticket.micro_batch} of step {ticket.step} in epoch {epoch + 1}"
        if refusal == Rejection.NOT_FINITE:
            self.diverged = True
            return f"the cost or the gradient of {what} is not finite: {self._explain(ticket)}"
        return f"the results for {what} were refused {_TRIES} times, the last one as {refusal.name.lower()}"
