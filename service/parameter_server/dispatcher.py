"""Who holds which ticket."""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, Self

from nablad.v1 import parameter_server_pb2 as ps_pb

__all__ = ["Dispatcher", "TicketKey"]


class TicketKey(NamedTuple):
    """What tells one ticket of an attempt from every other; sorts in the order of the work."""

    step: int
    kind: ps_pb.TicketKind.ValueType
    part: int

    @classmethod
    def of(cls, ticket: ps_pb.Ticket) -> Self:
        """The key of a ticket."""
        return cls(ticket.step, ticket.kind, ticket.micro_batch)


class Dispatcher:
    """Deals tickets to the workers that are free, and takes back those of a worker that is lost.

    Each ticket is in exactly one place: waiting, held by one worker, or done and forgotten here.
    """

    def __init__(self) -> None:
        self._waiting: deque[TicketKey] = deque()
        self._held: dict[str, set[TicketKey]] = {}

    @property
    def workers(self) -> int:
        """Workers that can be given tickets."""
        return len(self._held)

    def join(self, worker: str) -> None:
        """A worker asks for tickets."""
        self._held[worker] = set()

    def leave(self, worker: str) -> None:
        """A worker is gone; what it held goes first to the next that are free."""
        self._waiting.extendleft(sorted(self._held.pop(worker, ()), reverse=True))

    def open(self, tickets: Iterable[TicketKey]) -> None:
        """New tickets wait for workers."""
        self._waiting.extend(tickets)

    def done(self, ticket: TicketKey) -> None:
        """A result for the ticket was taken, from whomever: nobody has to compute it any more."""
        for held in self._held.values():
            held.discard(ticket)
        if ticket in self._waiting:
            self._waiting.remove(ticket)

    def give_back(self, worker: str, ticket: TicketKey) -> bool:
        """The worker's result for the ticket was refused: the ticket waits again, if the worker held it."""
        held = ticket in self._held.get(worker, ())
        if held:
            self._held[worker].remove(ticket)
            self._waiting.appendleft(ticket)
        return held

    def deal(self) -> dict[str, list[TicketKey]]:
        """Shares the waiting tickets out among the workers that hold none, in contiguous, nearly equal runs."""
        free = [worker for worker, held in self._held.items() if not held]
        if not self._waiting or not free:
            return {}
        tickets = list(self._waiting)
        self._waiting.clear()
        share, rest = divmod(len(tickets), len(free))
        dealt: dict[str, list[TicketKey]] = {}
        for number, worker in enumerate(free):
            count = share + (number < rest)
            if count:
                dealt[worker], tickets = tickets[:count], tickets[count:]
                self._held[worker].update(dealt[worker])
        return dealt
