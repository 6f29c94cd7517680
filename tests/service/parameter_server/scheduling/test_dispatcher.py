"""The dispatcher: each ticket is waiting, held by one worker, or done."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.parameter_server.scheduling.dispatcher import Dispatcher
from workers.transport.tickets import Ticket, TicketKind

MOST_TICKETS = 64


def _tickets(step: int, parts: int) -> list[Ticket]:
    return [Ticket(step, TicketKind.GRADIENT, part) for part in range(parts)]


def _dispatcher(*workers: str) -> Dispatcher:
    dispatcher = Dispatcher()
    for worker in workers:
        dispatcher.add_worker(worker)
    return dispatcher


def test_tickets_are_shared_in_contiguous_nearly_equal_runs() -> None:
    """Five tickets for two workers: three and two, neighbours together."""
    dispatcher = _dispatcher("a", "b")
    tickets = _tickets(0, 5)
    dispatcher.add_tickets(tickets)
    assert dispatcher.deal_tickets() == {"a": tickets[:3], "b": tickets[3:]}


@given(parts=st.integers(1, 1000), workers=st.integers(1, 12))
def test_shares_are_fair_and_small(parts: int, workers: int) -> None:
    """Shares differ by one ticket at most, none is over 64, and together they are the first tickets that waited."""
    dispatcher = _dispatcher(*map(str, range(workers)))
    tickets = _tickets(0, parts)
    dispatcher.add_tickets(tickets)
    shares = list(dispatcher.deal_tickets().values())
    sizes = [len(share) for share in shares] + [0] * (workers - len(shares))
    assert max(sizes) <= MOST_TICKETS
    assert max(sizes) - min(sizes) <= 1
    dealt = [ticket for share in shares for ticket in share]
    assert dealt == tickets[: min(parts, MOST_TICKETS * workers)]


def test_who_is_done_gets_what_still_waits() -> None:
    """More tickets than an order holds: the worker that answers first gets more of them."""
    dispatcher = _dispatcher("slow", "fast")
    tickets = _tickets(0, 200)
    dispatcher.add_tickets(tickets)
    for ticket in dispatcher.deal_tickets()["fast"]:
        dispatcher.complete_ticket("fast", ticket)
    assert dispatcher.deal_tickets() == {"fast": tickets[2 * MOST_TICKETS : 3 * MOST_TICKETS]}


def test_a_worker_that_holds_tickets_gets_no_more() -> None:
    """New tickets wait for workers that have none."""
    dispatcher = _dispatcher("a")
    dispatcher.add_tickets(_tickets(0, 2))
    dispatcher.deal_tickets()
    dispatcher.add_tickets(_tickets(1, 2))
    assert dispatcher.deal_tickets() == {}


def test_the_tickets_of_a_lost_worker_go_first() -> None:
    """What a lost worker held is dealt before anything that waits longer for its turn."""
    dispatcher = _dispatcher("a")
    first, second = _tickets(0, 2), _tickets(1, 2)
    dispatcher.add_tickets(first)
    dispatcher.deal_tickets()
    dispatcher.add_tickets(second)
    dispatcher.remove_worker("a")
    dispatcher.add_worker("b")
    assert dispatcher.deal_tickets() == {"b": first + second}


def test_a_ticket_given_back_by_a_worker_that_does_not_hold_it_stays_where_it_is() -> None:
    """A rejected result of somebody else does not double a ticket."""
    dispatcher = _dispatcher("a", "b")
    (ticket,) = _tickets(0, 1)
    dispatcher.add_tickets([ticket])
    dispatcher.deal_tickets()
    assert not dispatcher.return_ticket("b", ticket)
    dispatcher.remove_worker("b")
    dispatcher.add_worker("c")
    assert dispatcher.deal_tickets() == {}


def test_spare_tickets_go_to_workers_that_are_free_beyond_the_needed_ones() -> None:
    """When a step opens; one that is done a little before the others gets none, unless the step is late."""
    dispatcher, tickets = _dispatcher("a", "b", "c"), _tickets(0, 4)
    dispatcher.add_tickets(tickets, spares=2)
    assert dispatcher.deal_tickets() == {"a": [tickets[0]], "b": [tickets[1]], "c": [tickets[2]]}
    dispatcher.complete_ticket("a", tickets[0])
    assert dispatcher.could_deal_spares
    assert dispatcher.deal_tickets() == {}
    assert dispatcher.deal_tickets(late=True) == {"a": [tickets[3]]}
    assert not dispatcher.could_deal_spares


def test_spare_tickets_wait_until_all_needed_ones_are_dealt() -> None:
    """A worker alone gets the needed ones."""
    dispatcher, tickets = _dispatcher("a"), _tickets(0, 4)
    dispatcher.add_tickets(tickets, spares=1)
    assert dispatcher.waiting == 3
    assert dispatcher.deal_tickets() == {"a": tickets[:3]}
    dispatcher.add_worker("b")
    assert dispatcher.deal_tickets() == {}


def test_who_held_a_dropped_ticket_is_busy_until_it_reports() -> None:
    """It may be at work on one. Who reports just now is not, and a ticket that nobody held is forgotten."""
    dispatcher, tickets = _dispatcher("slow", "fast", "idle"), _tickets(0, 4)
    dispatcher.add_tickets(tickets[:3])
    dispatcher.deal_tickets()
    dispatcher.complete_ticket("idle", tickets[2])
    dispatcher.add_tickets(tickets[3:], spares=1)
    dispatcher.drop_tickets([*tickets[:2], tickets[3]], reporter="fast")
    following = _tickets(1, 2)
    dispatcher.add_tickets(following)
    assert dispatcher.deal_tickets(late=True) == {"fast": following[:1], "idle": following[1:]}
    assert dispatcher.is_at_work("slow")
    assert not dispatcher.holds_tickets("slow")
    dispatcher.record_report("slow")
    assert not dispatcher.is_at_work("slow")
    dispatcher.add_tickets(_tickets(2, 1))
    assert dispatcher.deal_tickets() == {"slow": _tickets(2, 1)}


class DispatcherMachine(RuleBasedStateMachine):
    """Whatever happens, no ticket is lost and none is held twice."""

    def __init__(self) -> None:
        super().__init__()
        self.dispatcher = Dispatcher()
        self.step = 0
        self.joined = 0
        self.workers: list[str] = []
        self.open: set[Ticket] = set()
        self.busy: set[str] = set()

    @rule()
    def join(self) -> None:
        self.joined += 1
        self.workers.append(f"w{self.joined}")
        self.dispatcher.add_worker(self.workers[-1])

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self.workers))
        self.workers.remove(worker)
        self.busy.discard(worker)
        self.dispatcher.remove_worker(worker)

    @rule(parts=st.integers(1, 5), spares=st.integers(0, 4))
    def open_tickets(self, parts: int, spares: int) -> None:
        tickets = _tickets(self.step, parts)
        self.step += 1
        self.open |= set(tickets)
        self.dispatcher.add_tickets(tickets, min(spares, parts - 1))

    @rule(late=st.booleans())
    def deal(self, late: bool) -> None:
        free = {worker for worker in self.workers if not self.dispatcher.is_at_work(worker)}
        waiting = self.dispatcher.waiting
        dealt = self.dispatcher.deal_tickets(late=late)
        assert dealt.keys() <= free
        assert all(dealt.values())
        assert not free or not self.dispatcher.waiting
        assert sum(map(len, dealt.values())) >= (waiting if free else 0)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        dropped = data.draw(st.sets(st.sampled_from(sorted(self.open))))
        reporter = data.draw(st.sampled_from([*self.workers, "somebody else"]))
        self.busy |= {worker for worker, ticket in self._held() if ticket in dropped and worker != reporter}
        self.open -= dropped
        self.dispatcher.drop_tickets(dropped, reporter)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def report(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self.workers))
        self.busy.discard(worker)
        self.dispatcher.record_report(worker)

    @invariant()
    def who_is_at_work_is_known(self) -> None:
        holders = {worker for worker, _ in self._held()}
        assert {worker for worker in self.workers if self.dispatcher.is_at_work(worker)} == holders | self.busy

    @precondition(lambda self: self._held())
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        worker, ticket = data.draw(st.sampled_from(self._held()))
        self.open.remove(ticket)
        self.dispatcher.complete_ticket(worker, ticket)

    @precondition(lambda self: self.open and self.workers)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        worker, ticket = data.draw(st.sampled_from(self.workers)), data.draw(st.sampled_from(sorted(self.open)))
        held = (worker, ticket) in self._held()
        assert self.dispatcher.holds_ticket(worker, ticket) == held
        assert self.dispatcher.return_ticket(worker, ticket) == held

    def _held(self) -> list[tuple[str, Ticket]]:
        return [(worker, ticket) for worker in self.workers for ticket in sorted(self.dispatcher._held[worker])]

    @invariant()
    def every_open_ticket_is_in_one_place(self) -> None:
        waiting = [*self.dispatcher._waiting, *self.dispatcher._spares]
        held = [ticket for tickets in self.dispatcher._held.values() for ticket in tickets]
        assert sorted(waiting + held) == sorted(self.open)

    @invariant()
    def it_counts_its_workers(self) -> None:
        assert self.dispatcher.workers == len(self.workers)


DispatcherMachine.TestCase.settings = settings(
    max_examples=settings().max_examples, stateful_step_count=40, deadline=None
)
TestDispatcherMachine = DispatcherMachine.TestCase
