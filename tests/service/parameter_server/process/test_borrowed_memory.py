"""Workers that write over their memory as soon as they may: what they had borrowed was read before, or copied."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from nablad.v1 import parameter_server_pb2 as ps_pb
from workers.transport.tickets import Result, Ticket

MakeJob = Callable[..., ps_pb.Assignment]
Serve = Callable[..., Any]
PlainTraining = Callable[[ps_pb.Assignment], bytes]


class _Scribbler:
    """Works by hand, and writes over its memory as soon as it may: whenever it is told what to do next."""

    def __init__(self, served: Any) -> None:
        self.hand = served.hand()
        self.tickets: list[Ticket] = []
        self._version = 0

    def listen(self) -> bool:
        """Waits for an order; whether there was one."""
        order = self.hand.connection.next_order()
        if order is None:
            return False
        assert not any(order.rejections)
        self.tickets += order.tickets
        self._version = order.version
        self.hand.connection.gradient[:] = 1e300
        return True

    def compute(self) -> Result:
        """Computes the answer to its next ticket."""
        result: Result = self.hand.compute(self.tickets.pop(0), self._version)
        return result

    def answer(self) -> None:
        """Answers its next ticket, and is told to go on if it has more."""
        self.hand.send(self.compute())
        if self.tickets:
            self.listen()

    def finish(self) -> None:
        """Works until there is no more to do."""
        while self.tickets or self.listen():
            self.answer()


def _micro_batches(scribbler: _Scribbler) -> list[int]:
    return [ticket.micro_batch for ticket in scribbler.tickets]


def _two_that_share_a_step(served: Any) -> tuple[_Scribbler, _Scribbler]:
    """One worker with parts 0 and 1 of the second step, one with 2 and 3."""
    one = _Scribbler(served)
    one.listen()
    two = _Scribbler(served)
    served.wait_for("worker_joined", 2)
    for _ in range(4):
        one.answer()
    one.listen()
    two.listen()
    assert (_micro_batches(one), _micro_batches(two)) == ([0, 1], [2, 3])
    return one, two


@pytest.mark.parametrize("answered_by_the_lost", [0, 1, 2])
@pytest.mark.parametrize("answered_before", [0, 1, 2])
def test_a_worker_that_goes_on_writing_after_another_one_died(
    serve: Serve, make_job: MakeJob, plain_training: PlainTraining, answered_before: int, answered_by_the_lost: int
) -> None:
    """Four parts, two workers, one dies: the other gets its tickets in the same step, and writes to borrowed memory."""
    job = make_job(transport="shared")
    served = serve(job)
    one, two = _two_that_share_a_step(served)
    for _ in range(answered_before):
        one.answer()
    for _ in range(answered_by_the_lost):
        two.answer()
    two.hand.leave()
    served.wait_for("worker_lost")
    two.hand.connection.gradient[:] = 1e300
    one.finish()
    assert served.weights() == plain_training(job)


def test_a_lonely_gradient_stands_still_while_its_worker_goes_on(
    serve: Serve, make_job: MakeJob, plain_training: PlainTraining
) -> None:
    """A part whose neighbour is missing waits in borrowed memory; its worker then computes the neighbour."""
    job = make_job(transport="shared")
    served = serve(job)
    one, two = _two_that_share_a_step(served)
    # Part 2 comes to nothing and waits again; two's part 3 is then alone in the tree, and in two's memory.
    spoilt = two.compute()
    spoilt.sums = replace(spoilt.sums, samples=spoilt.sums.samples + 1)
    two.hand.send(spoilt)
    assert [rejection.name for rejection in two.hand.order().rejections] == ["WRONG_COUNT"]
    two.answer()
    two.listen()
    assert _micro_batches(two) == [2]
    two.answer()
    one.answer()
    one.answer()
    one.hand.leave()
    served.wait_for("worker_lost")
    two.finish()
    assert served.weights() == plain_training(job)


def test_a_lonely_gradient_outlives_its_worker(serve: Serve, make_job: MakeJob, plain_training: PlainTraining) -> None:
    """Three parts: the last one has no neighbour, and its worker dies before the others are in."""
    job = make_job(transport="shared", micro_batches=3)
    served = serve(job)
    hands = [_Scribbler(served)]
    hands[0].listen()
    hands += [_Scribbler(served) for _ in range(2)]
    served.wait_for("worker_joined", 3)
    for _ in range(3):
        hands[0].answer()
    for each in hands:
        each.listen()
    *others, last = hands
    assert _micro_batches(last) == [2]
    last.answer()
    others[0].answer()
    last.hand.leave()
    served.wait_for("worker_lost")
    last.hand.connection.gradient[:] = 1e300
    others[1].hand.leave()
    others[0].finish()
    assert served.weights() == plain_training(job)
