"""Dispatcher: the assignment of tickets to workers."""

from collections import deque
from collections.abc import Iterable

from workers.transport.tickets import Ticket

__all__ = ["Dispatcher"]

# A worker gets no more tickets at a time, so that orders stay small and fast workers get more tickets.
_MOST_TICKETS = 64


class Dispatcher:
    """Deals tickets to free workers, and takes back the tickets of lost ones.

    Each ticket is in exactly one place: waiting, held by one worker, or done and forgotten here.
    """

    def __init__(self) -> None:
        self._waiting: deque[Ticket] = deque()
        self._held: dict[str, set[Ticket]] = {}

    @property
    def workers(self) -> int:
        """Number of workers that can get tickets."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """Number of tickets that no worker holds."""
        return len(self._waiting)

    def holds_tickets(self, worker: str) -> bool:
        """Returns whether the worker has a ticket to answer."""
        return bool(self._held.get(worker))

    def holds_ticket(self, worker: str, ticket: Ticket) -> bool:
        """Returns whether the worker has this ticket to answer."""
        return ticket in self._held.get(worker, ())

    def add_worker(self, worker: str) -> None:
        """Adds a worker without tickets."""
        self._held[worker] = set()

    def remove_worker(self, worker: str) -> None:
        """Removes a worker; its tickets are the first that are dealt next."""
        self._waiting.extendleft(sorted(self._held.pop(worker, ()), reverse=True))

    def add_tickets(self, tickets: Iterable[Ticket]) -> None:
        """Adds new tickets, which wait for workers."""
        self._waiting.extend(tickets)

    def complete_ticket(self, worker: str, ticket: Ticket) -> None:
        """Forgets a ticket that the worker held, because its result was accepted."""
        self._held[worker].remove(ticket)

    def return_ticket(self, worker: str, ticket: Ticket) -> bool:
        """Takes a ticket back whose result was rejected; it waits again.

        Returns:
            Whether the worker held it; nothing changes if not.
        """
        held = self.holds_ticket(worker, ticket)
        if held:
            self._held[worker].remove(ticket)
            self._waiting.appendleft(ticket)
        return held

    def complete_all_tickets(self) -> None:
        """Forgets all tickets that workers hold, because their steps are made."""
        for held in self._held.values():
            held.clear()

    def return_all_tickets(self) -> None:
        """Takes back all tickets; they wait again."""
        for held in self._held.values():
            self._waiting.extend(held)
            held.clear()
        self._waiting = deque(sorted(self._waiting))

    def deal_tickets(self) -> dict[str, list[Ticket]]:
        """Deals the waiting tickets to the workers that hold none, in contiguous, nearly equal runs."""
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
