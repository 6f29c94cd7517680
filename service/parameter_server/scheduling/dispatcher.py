"""Dispatcher: the assignment of tickets to workers."""

from collections import deque
from collections.abc import Iterable

from workers.transport.tickets import Ticket

__all__ = ["Dispatcher"]

# A worker gets no more tickets at a time, so that orders stay small and fast workers get more tickets.
_MOST_TICKETS = 64


class Dispatcher:
    """Deals tickets to free workers, and takes back the tickets of lost ones.

    Each ticket is in exactly one place: waiting, held by one worker, or done and forgotten here. Spare tickets wait
    apart, because a step can be applied without them. A worker that holds no ticket is free, unless it is still at work
    on a ticket that was dropped: that one is busy until it reports.
    """

    def __init__(self) -> None:
        self._waiting: deque[Ticket] = deque()
        self._spares: deque[Ticket] = deque()
        self._spares_are_new = False  # no worker had a chance to get one
        self._held: dict[str, set[Ticket]] = {}
        self._busy: set[str] = set()

    @property
    def workers(self) -> int:
        """Number of workers that can get tickets."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """Number of tickets that no worker holds, without spare ones."""
        return len(self._waiting)

    @property
    def could_deal_spares(self) -> bool:
        """True if spare tickets wait, and a worker is free to get one."""
        return bool(self._spares) and bool(self._free_workers())

    def holds_tickets(self, worker: str) -> bool:
        """Returns whether the worker has a ticket to answer."""
        return bool(self._held.get(worker))

    def holds_ticket(self, worker: str, ticket: Ticket) -> bool:
        """Returns whether the worker has this ticket to answer."""
        return ticket in self._held.get(worker, ())

    def is_at_work(self, worker: str) -> bool:
        """Returns whether a report of the worker is due: of a ticket that it holds, or of one that was dropped."""
        return self.holds_tickets(worker) or worker in self._busy

    def add_worker(self, worker: str) -> None:
        """Adds a worker without tickets."""
        self._held[worker] = set()

    def remove_worker(self, worker: str) -> None:
        """Removes a worker; its tickets are the first that are dealt next."""
        self._busy.discard(worker)
        self._waiting.extendleft(sorted(self._held.pop(worker, ()), reverse=True))

    def add_tickets(self, tickets: Iterable[Ticket], spares: int = 0) -> None:
        """Adds new tickets, which wait for workers; the last `spares` of them are spare ones."""
        added = list(tickets)
        needed = len(added) - spares
        self._waiting.extend(added[:needed])
        self._spares.extend(added[needed:])
        self._spares_are_new = bool(self._spares)

    def complete_ticket(self, worker: str, ticket: Ticket) -> None:
        """Forgets a ticket that the worker held, because its result was accepted."""
        self._held[worker].remove(ticket)

    def record_report(self, worker: str) -> None:
        """Records that a worker reported a result, so that it is not busy with a dropped ticket any more."""
        self._busy.discard(worker)

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

    def drop_tickets(self, tickets: Iterable[Ticket], reporter: str) -> None:
        """Drops tickets, wherever they are. Workers that held some are busy, because they may be at work on one.

        Args:
            tickets: Tickets that were added.
            reporter: Worker whose result brought this about. It waits for its next order, so it is not busy.
        """
        dropped = set(tickets)
        if not dropped:
            return
        self._waiting = deque(ticket for ticket in self._waiting if ticket not in dropped)
        self._spares = deque(ticket for ticket in self._spares if ticket not in dropped)
        for worker, held in self._held.items():
            if held & dropped:
                held.difference_update(dropped)
                if worker != reporter:
                    self._busy.add(worker)

    def deal_tickets(self, *, late: bool = False) -> dict[str, list[Ticket]]:
        """Deals the waiting tickets to the free workers, in contiguous, nearly equal runs.

        Spare tickets go to workers that are free beyond that, one each: when the tickets of their step are dealt first,
        or when the step is late. Not in between: a worker that is done a little before the others would begin with a
        part that is hardly ever needed, and be busy with it when the next step opens.
        """
        if not self._waiting and not (self._spares and (late or self._spares_are_new)):
            return {}
        dealt: dict[str, list[Ticket]] = {}
        free = self._free_workers()
        for number, worker in enumerate(free):
            share = -(-len(self._waiting) // (len(free) - number))
            tickets = [self._waiting.popleft() for _ in range(min(share, _MOST_TICKETS))]
            if not tickets and self._spares and (late or self._spares_are_new):
                tickets = [self._spares.popleft()]
            if tickets:
                dealt[worker] = tickets
                self._held[worker].update(tickets)
        self._spares_are_new = self._spares_are_new and not free
        return dealt

    def _free_workers(self) -> list[str]:
        return [worker for worker, held in self._held.items() if not held and worker not in self._busy]
