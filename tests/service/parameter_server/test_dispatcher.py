"""The dispatcher: each ticket is waiting, held by one worker, or done."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.dispatcher import Dispatcher, TicketKey


def _keys(step: int, parts: int) -> list[TicketKey]:
    return [TicketKey(step, ps_pb.TICKET_KIND_GRADIENT, part) for part in range(parts)]


def test_tickets_are_shared_in_contiguous_nearly_equal_runs() -> None:
    """Five tickets for two workers: three and two, neighbours together."""
    dispatcher = Dispatcher()
    dispatcher.join("a")
    dispatcher.join("b")
    keys = _keys(0, 5)
    dispatcher.open(keys)
    assert dispatcher.deal() == {"a": keys[:3], "b": keys[3:]}


def test_a_worker_that_holds_tickets_gets_no_more() -> None:
    """New tickets wait for workers that have none."""
    dispatcher = Dispatcher()
    dispatcher.join("a")
    dispatcher.open(_keys(0, 2))
    dispatcher.deal()
    dispatcher.open(_keys(1, 2))
    assert dispatcher.deal() == {}


def test_the_tickets_of_a_lost_worker_go_first() -> None:
    """What a lost worker held is dealt before anything that waits longer for its turn."""
    dispatcher = Dispatcher()
    dispatcher.join("a")
    first, second = _keys(0, 2), _keys(1, 2)
    dispatcher.open(first)
    dispatcher.deal()
    dispatcher.open(second)
    dispatcher.leave("a")
    dispatcher.join("b")
    assert dispatcher.deal() == {"b": first + second}


def test_a_ticket_given_back_by_a_worker_that_does_not_hold_it_stays_where_it_is() -> None:
    """A refused result of somebody else does not double a ticket."""
    dispatcher = Dispatcher()
    dispatcher.join("a")
    dispatcher.join("b")
    (key,) = _keys(0, 1)
    dispatcher.open([key])
    dispatcher.deal()
    dispatcher.give_back("b", key)
    dispatcher.leave("b")
    dispatcher.join("c")
    assert dispatcher.deal() == {}


class DispatcherMachine(RuleBasedStateMachine):
    """Whatever happens, no ticket is lost and none is held twice."""

    def __init__(self) -> None:
        super().__init__()
        self.dispatcher = Dispatcher()
        self.step = 0
        self.joined = 0
        self.workers: list[str] = []
        self.open: set[TicketKey] = set()

    @rule()
    def join(self) -> None:
        self.joined += 1
        self.workers.append(f"w{self.joined}")
        self.dispatcher.join(self.workers[-1])

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self.workers))
        self.workers.remove(worker)
        self.dispatcher.leave(worker)

    @rule(parts=st.integers(1, 5))
    def open_tickets(self, parts: int) -> None:
        keys = _keys(self.step, parts)
        self.step += 1
        self.open |= set(keys)
        self.dispatcher.open(keys)

    @rule()
    def deal(self) -> None:
        self.dispatcher.deal()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.open)))
        self.open.remove(key)
        self.dispatcher.done(key)

    @precondition(lambda self: self.open and self.workers)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        self.dispatcher.give_back(
            data.draw(st.sampled_from(self.workers)), data.draw(st.sampled_from(sorted(self.open)))
        )

    @invariant()
    def every_open_ticket_is_in_one_place(self) -> None:
        waiting = list(self.dispatcher._waiting)
        held = [key for keys in self.dispatcher._held.values() for key in keys]
        assert sorted(waiting + held) == sorted(self.open)


DispatcherMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
TestDispatcherMachine = DispatcherMachine.TestCase
