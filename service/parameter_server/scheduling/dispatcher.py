"""Who holds which ticket."""

from collections import deque
from collections.abc import Iterable

from workers.transport.tickets import Ticket

__all__ = ["Dispatcher"]


# A worker gets no more at a time, so that an order stays small, and who is fast gets more.
_MOST_TICKETS = 64


class Dispatcher:
    """Deals tickets to the workers that are free, and takes back those of a worker that is lost.

    Each ticket is in exactly one place: waiting, held by one worker, or done and forgotten here.
    """

    def __init__(self) -> None:
        self._waiting: deque[Ticket] = deque()
        self._held: dict[str, set[Ticket]] = {}

    @property
    def workers(self) -> int:
        """Workers that can be given tickets."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """Tickets that nobody has."""
        return len(self._waiting)

    def holds(self, worker: str) -> bool:
        """Whether the worker has a ticket yet to answer."""
        return bool(self._held.get(worker))

    def has_given(self, worker: str, ticket: Ticket) -> bool:
        """Whether it is this ticket that the worker has to answer, or one of these."""
        return ticket in self._held.get(worker, ())

    def join(self, worker: str) -> None:
        """A worker asks for tickets."""
        self._held[worker] = set()

    def leave(self, worker: str) -> None:
        """A worker is gone; what it held goes first to the next that are free."""
        self._waiting.extendleft(sorted(self._held.pop(worker, ()), reverse=True))

    def open(self, tickets: Iterable[Ticket]) -> None:
        """New tickets wait for workers."""
        self._waiting.extend(tickets)

    def done(self, worker: str, ticket: Ticket) -> None:
        """The worker's result for a ticket that it held was taken."""
        self._held[worker].remove(ticket)

    def give_back(self, worker: str, ticket: Ticket) -> bool:
        """The worker's result for the ticket was refused: the ticket waits again, if the worker held it."""
        held = self.has_given(worker, ticket)
        if held:
            self._held[worker].remove(ticket)
            self._waiting.appendleft(ticket)
        return held

    def deal(self) -> dict[str, list[Ticket]]:
        """Shares the waiting tickets out among the workers that hold none, in contiguous, nearly equal runs."""
        if not self._waiting:
            return {}
        dealt: dict[str, list[Ticket]] = {}
        free = [worker for worker, held in self._held.items() if not held]
        for number, worker in enumerate(free):
            share = -(-len(self._waiting) // (len(free) - number))
            tickets = [self._waiting.popleft() for _ in range(min(share, _MOST_TICKETS))]
            if tickets:
                dealt[worker] = tickets
                self._held[worker].update(tickets)
        return dealt
