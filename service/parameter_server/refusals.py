"""Results that are refused again and again: when there is no point in going on, and what to do then."""

from collections import Counter
from typing import Final

from workers.plan import Plan
from workers.tickets import Refusal, Ticket, TicketKind

__all__ = ["Refusals"]

# A ticket whose results are refused this often fails the job: the answer to a ticket depends on nothing but the ticket.
_TRIES: Final = 3


class Refusals:
    """Counts the refusals of the tickets of the open rounds.

    Attributes:
        divergence: What to do about a training that diverged, as the end of a sentence.
    """

    def __init__(self, plan: Plan, learning_rate: float) -> None:
        """Nothing was refused yet."""
        self.divergence = (
            f"the training diverged; give a training.learning_rate below {learning_rate:g}, "
            "and data.scaling if features are large"
        )
        self._plan = plan
        self._counts: Counter[Ticket] = Counter()

    def clear(self) -> None:
        """The rounds that were open are complete."""
        self._counts.clear()

    def add(self, ticket: Ticket, refusal: Refusal) -> str:
        """A result for a ticket was refused that its worker held.

        Returns:
            Why the training cannot go on, as a sentence; empty while it can.
        """
        self._counts[ticket] += 1
        return self._sentence(ticket, refusal) if self._counts[ticket] >= _TRIES else ""

    def _sentence(self, ticket: Ticket, refusal: Refusal) -> str:
        epoch = self._plan.epoch(ticket.step - (ticket.kind == TicketKind.EVALUATION))
        what = f"micro-batch {ticket.micro_batch} of step {ticket.step} in epoch {epoch + 1}"
        if refusal == Refusal.NOT_FINITE:
            return f"the cost or the gradient of {what} is not finite: {self.divergence}"
        return f"the results for {what} were refused {_TRIES} times, the last one as {refusal.name.lower()}"
