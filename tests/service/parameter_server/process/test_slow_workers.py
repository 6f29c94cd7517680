"""A slow worker among real ones: with the policy backup nobody waits for it, and nothing of it counts too late."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from nablad.v1 import parameter_server_pb2 as ps_pb
from workers.computation import Computation
from workers.transport.tickets import Rejection, Ticket

MakeJob = Callable[..., ps_pb.Assignment]
Serve = Callable[..., Any]

STEPS, ROWS = 8, 50
LAST = 5  # step at which the workers wait, so that there is an end to come


class Gate:
    """Workers that wait at a step until they are let through."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        gather = Computation.gather

        def wait_and_gather(computation: Computation, ticket: Ticket) -> None:
            if threading.current_thread().name.startswith("real") and ticket.step >= LAST:
                self.open.wait()
            gather(computation, ticket)

        patch.setattr(Computation, "gather", wait_and_gather)


@pytest.mark.parametrize("transport", ["shared", "inline"])
def test_a_slow_worker_is_late_and_then_works_on(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    """Its result of a step that was applied is rejected, it gets tickets of a newer one, and no sample is forgotten."""
    gate = Gate(monkeypatch)
    served = serve(make_job(rows=ROWS, transport=transport, micro_batches=3, policy="backup"))
    slow = served.hand()
    order = slow.order()  # it is alone: it has what the first step needs
    with ThreadPoolExecutor(2, "real") as pool:
        real = [pool.submit(served.work) for _ in range(2)]
        try:
            served.wait_for("worker_joined", 3)
            slow.answer(order)
            order = slow.order()
            assert [ticket.step for ticket in order.tickets] == [1]
            while served.state().progress.step < LAST:
                pass
            slow.send(slow.compute(order.tickets[0], order.version))
        finally:
            gate.open.set()
        after = slow.order()
        assert after.rejections[-1] == Rejection.LATE
        assert after.tickets[0].step > LAST
        slow.leave()
        for run in real:
            run.result()
    told = served.state()
    assert told.progress.step == STEPS
    assert told.progress.samples + told.progress.dropped_samples == 2 * ROWS
    assert told.statistics.dropped_micro_batches == told.progress.dropped_micro_batches == STEPS
    assert told.statistics.rejected["late"] >= 1
