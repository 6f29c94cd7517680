"""Workers that break off, hang or lie: the result is as without them."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.engine import Engine
from service.parameter_server.transport.members import Member
from workers.mathematics.sums import SampleSums
from workers.transport.frames import Order
from workers.transport.tickets import Result, Ticket

MakeJob = Callable[..., ps_pb.Assignment]
Serve = Callable[..., Any]
PlainTraining = Callable[[ps_pb.Assignment], bytes]

both_transports = pytest.mark.parametrize("transport", ["shared", "inline"])


@both_transports
def test_a_worker_that_breaks_off_is_replaced_without_a_trace(
    serve: Serve, make_job: MakeJob, plain_training: PlainTraining, transport: str
) -> None:
    """A membership that ends with tickets open changes nothing in the result, and is told as a event."""
    job = make_job(transport=transport)
    served = serve(job)
    hand = served.hand()
    order = hand.order()
    hand.send(hand.compute(order.tickets[0], order.version))
    assert hand.order().rejections == [None]
    hand.leave()
    served.wait_for("worker_lost")
    served.work()
    assert served.weights() == plain_training(job)
    assert served.story() == [
        "worker_joined", "worker_lost", "worker_joined", "epoch_end", "epoch_end", "finished",
    ]  # fmt: skip
    assert served.state().statistics.workers_lost == 1


@both_transports
def test_a_worker_that_hangs_is_given_up(
    serve: Serve, make_job: MakeJob, plain_training: PlainTraining, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    """One that holds tickets and says nothing is told to join again, and the others do its work."""
    monkeypatch.setattr("service.parameter_server.engine._CHECK_SECONDS", 0.02)
    job = make_job(transport=transport)
    served = serve(job, patience_seconds=0.1)
    hand = served.hand()
    assert hand.order().tickets
    assert hand.end() == (grpc.StatusCode.UNAVAILABLE, f"no word of {hand.name} for 0 s: join again")
    assert hand.connection.next_order() is None
    served.work()
    assert served.weights() == plain_training(job)
    assert "no word of" in served.wait_for("worker_lost")[0].worker_lost


@both_transports
def test_rejected_results_do_not_disturb_the_training(
    serve: Serve, make_job: MakeJob, plain_training: PlainTraining, transport: str
) -> None:
    """A worker that sends rubbish first is told so, gets the tickets again, and the result is as without it."""
    job = make_job(transport=transport)
    served = serve(job)
    hand = served.hand()
    order = hand.order()
    for ticket in order.tickets:
        hand.connection.start_gradient()
        hand.send(Result(ticket, order.version, SampleSums(0.0, 1)))
    again, rejected = [], []
    while len(rejected) < len(order.tickets):
        told = hand.order()
        again += told.tickets
        rejected += [rejection.name for rejection in told.rejections]
    assert rejected == ["WRONG_COUNT"] * len(order.tickets)
    assert sorted(again) == order.tickets
    hand.leave()
    served.wait_for("worker_lost")
    served.work()
    assert served.weights() == plain_training(job)
    assert served.state().statistics.rejected == {"wrong_count": 4}


@both_transports
def test_every_kind_of_rubbish_has_its_reason(
    serve: Serve, make_job: MakeJob, plain_training: PlainTraining, transport: str
) -> None:
    """Right results between wrong ones are taken; what is left open is given out again, and no weight is touched."""
    job = make_job(transport=transport)
    served = serve(job)
    hand = served.hand()
    order = hand.order()
    told, tickets = [], []

    def send(result: Result, attempt: int = 1) -> None:
        hand.connection.start_gradient()
        hand.send(result, attempt)
        answer = hand.order()
        tickets.extend(answer.tickets)
        told.extend(rejection and rejection.name for rejection in answer.rejections)

    send(hand.compute(order.tickets[0], 0), attempt=7)
    send(Result(Ticket(2**63, 1, 0), 0, SampleSums(0.0, 0)))
    send(hand.compute(order.tickets[1], 0))
    send(hand.compute(order.tickets[1], 0))
    not_finite = hand.compute(order.tickets[2], 0)
    hand.connection.gradient[:] = np.nan
    send(not_finite)
    send(hand.compute(order.tickets[3], 0))
    assert told == ["WRONG_ATTEMPT", "UNKNOWN_TICKET", None, "DUPLICATE", "NOT_FINITE", None]
    assert sorted(ticket.micro_batch for ticket in tickets) == [0, 2]
    assert served.weights() == hand.connection.weights.tobytes()
    hand.answer(Order(tickets, [], 0))
    hand.work()
    assert served.weights() == plain_training(job)


def test_a_worker_whose_call_breaks_off_while_it_is_added_is_lost(
    serve: Serve, make_job: MakeJob, plain_training: PlainTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tickets are not forgotten with it."""

    async def add_and_break_off(self: Engine, member: Member) -> None:
        await add(self, member)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    add, job = Engine.add_worker, make_job()
    served = serve(job)
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "add_worker", add_and_break_off)
        served.hand().order()
        served.wait_for("worker_lost")
    served.work()
    assert served.weights() == plain_training(job)


# -- in the middle of a gradient ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("answered", [0, 1, 3])
def test_a_worker_that_dies_between_two_parts_of_a_gradient(
    serve: Serve, make_job: MakeJob, plain_training: PlainTraining, monkeypatch: pytest.MonkeyPatch, answered: int
) -> None:
    """What was sent of it is forgotten; another worker computes all of it."""
    monkeypatch.setattr("workers.transport.server_connection._PART_BYTES", 1)
    job = make_job(transport="inline")
    served = serve(job)
    hand = served.hand()
    order = hand.order()
    for ticket in order.tickets[:answered]:
        hand.send(hand.compute(ticket, order.version))
        assert hand.order().rejections == [None]
    hand.compute(order.tickets[answered], order.version)  # the last layer is on its way
    hand.connection.__exit__()
    code, reason = hand.end()
    assert code == grpc.StatusCode.UNAVAILABLE
    assert "its connection broke" in reason
    served.work()
    assert served.weights() == plain_training(job)


@pytest.mark.parametrize("answered", [0, 1, 3])
def test_a_worker_that_dies_before_it_rings_the_bell(
    serve: Serve, make_job: MakeJob, plain_training: PlainTraining, answered: int
) -> None:
    """Half a gradient stands in the memory that it has borrowed for the one before: nobody reads any of it."""
    job = make_job(transport="shared")
    served = serve(job)
    hand = served.hand()
    order = hand.order()
    for ticket in order.tickets[:answered]:
        hand.send(hand.compute(ticket, order.version))
        assert hand.order().rejections == [None]
    hand.connection.gradient[: hand.connection.gradient.size // 2] = 1e300
    hand.connection.__exit__()
    assert hand.end()[0] == grpc.StatusCode.UNAVAILABLE
    served.work()
    assert served.weights() == plain_training(job)
