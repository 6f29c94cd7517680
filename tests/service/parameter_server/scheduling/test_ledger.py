"""Results that are not taken, what is said of them, and when there is no point in going on."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from service.parameter_server.coordinator import Coordinator
from workers.mathematics.sums import SampleSums
from workers.plan import Plan
from workers.transport.tickets import Rejection, Result, Ticket, TicketKind

MakeCoordinator = Callable[..., Coordinator]
Answer = Callable[..., Result]

SIZE = 6
PLAN = Plan(rows=10, batch_size=4, micro_batches=3, epochs=2, seed=1, validation_rows=5)
ONE_ROW = Plan(rows=1, batch_size=1, micro_batches=1, epochs=1, seed=1)


@pytest.fixture
def coordinator(make_coordinator: MakeCoordinator) -> Coordinator:
    """A training by PLAN."""
    return make_coordinator(PLAN, SIZE)


def _first_tickets(coordinator: Coordinator) -> list[Ticket]:
    coordinator.add_worker("w")
    return coordinator.deal_tickets()["w"]


def _with(result: Result, **sums: float) -> Result:
    return replace(result, sums=replace(result.sums, **sums))


NAN = np.full(SIZE, np.nan)
BAD_RESULTS = {
    "nan gradient": (lambda r: replace(r, gradient=NAN), Rejection.NOT_FINITE),
    "infinite gradient": (lambda r: replace(r, gradient=np.full(SIZE, np.inf)), Rejection.NOT_FINITE),
    "one number not finite": (
        lambda r: replace(r, gradient=np.append(np.zeros(SIZE - 1), -np.inf)),
        Rejection.NOT_FINITE,
    ),
    "nan cost": (lambda r: _with(r, cost_sum=math.nan), Rejection.NOT_FINITE),
    "infinite cost": (lambda r: _with(r, cost_sum=-math.inf), Rejection.NOT_FINITE),
    "short gradient": (lambda r: replace(r, gradient=r.gradient[:-1]), Rejection.WRONG_SIZE),
    "matrix": (lambda r: replace(r, gradient=r.gradient.reshape(2, 3)), Rejection.WRONG_SIZE),
    "other dtype": (lambda r: replace(r, gradient=r.gradient.astype("f4")), Rejection.WRONG_SIZE),
    "no gradient": (lambda r: replace(r, gradient=None), Rejection.WRONG_SIZE),
    "too many samples": (lambda r: _with(r, samples=r.sums.samples + 1), Rejection.WRONG_COUNT),
    "no samples": (lambda r: _with(r, samples=0, correct_count=0), Rejection.WRONG_COUNT),
    "more right than there are": (lambda r: _with(r, correct_count=99), Rejection.WRONG_COUNT),
    "computed from other weights": (lambda r: replace(r, version=7), Rejection.WRONG_VERSION),
    "unknown step": (lambda r: replace(r, ticket=r.ticket._replace(step=1)), Rejection.UNKNOWN_TICKET),
    "a step beyond all": (lambda r: replace(r, ticket=r.ticket._replace(step=2**64 - 1)), Rejection.UNKNOWN_TICKET),
    "unknown part": (lambda r: replace(r, ticket=r.ticket._replace(micro_batch=3)), Rejection.UNKNOWN_TICKET),
    "unknown kind": (lambda r: replace(r, ticket=r.ticket._replace(kind=0)), Rejection.UNKNOWN_TICKET),
    "evaluation not due": (lambda r: replace(r, ticket=Ticket(3, TicketKind.EVALUATION, 0)), Rejection.UNKNOWN_TICKET),
    "evaluation of nothing": (
        lambda r: replace(r, ticket=Ticket(0, TicketKind.EVALUATION, 0)),
        Rejection.UNKNOWN_TICKET,
    ),
}


@pytest.mark.parametrize("name", BAD_RESULTS)
def test_a_bad_result_is_rejected_with_its_reason_and_changes_nothing(
    coordinator: Coordinator, answer: Answer, name: str
) -> None:
    """The weights, the version and the ledger are as before; the right result is taken afterwards."""
    spoil, rejection = BAD_RESULTS[name]
    ticket = _first_tickets(coordinator)[0]
    assert coordinator.accept_result("w", 2, spoil(answer(coordinator, ticket, PLAN))) == rejection
    assert not coordinator.shard.parameters.any()
    assert coordinator.version == 0
    assert coordinator.rejected == {rejection: 1}
    coordinator.add_worker("next")
    holder = "next" if coordinator.deal_tickets() else "w"  # a ticket that was held is dealt again
    assert coordinator.accept_result(holder, 2, answer(coordinator, ticket, PLAN)) is None


def test_large_gradients_are_not_mistaken_for_infinite_ones(make_coordinator: MakeCoordinator) -> None:
    """Numbers whose squares overflow are finite all the same."""
    coordinator = make_coordinator(ONE_ROW, SIZE, "float32")
    (ticket,) = _first_tickets(coordinator)
    with np.errstate(over="ignore"):
        assert (
            coordinator.accept_result("w", 2, Result(ticket, 0, SampleSums(1.0, 1), np.full(SIZE, 3e38, np.float32)))
            is None
        )


def test_a_result_of_another_attempt_is_refused(coordinator: Coordinator, answer: Answer) -> None:
    """Only results of this attempt count."""
    ticket = _first_tickets(coordinator)[0]
    assert coordinator.accept_result("w", 1, answer(coordinator, ticket, PLAN)) == Rejection.WRONG_ATTEMPT


def test_a_rejected_ticket_is_given_out_again(coordinator: Coordinator, answer: Answer) -> None:
    """To whoever is free next, also when the rejected worker has others to answer."""
    first, second, third = _first_tickets(coordinator)
    coordinator.accept_result("w", 2, replace(answer(coordinator, first, PLAN), gradient=NAN))
    coordinator.add_worker("free")
    assert coordinator.deal_tickets() == {"free": [first]}
    for worker, ticket in (("w", second), ("free", first), ("w", third)):
        assert coordinator.accept_result(worker, 2, answer(coordinator, ticket, PLAN)) is None
    assert coordinator.version == 1


def test_rejections_of_what_a_worker_does_not_hold_fail_nothing(coordinator: Coordinator, answer: Answer) -> None:
    """Only results for tickets that a worker holds count against the job."""
    ticket = _first_tickets(coordinator)[0]
    coordinator.add_worker("stranger")
    for _ in range(5):
        result = replace(answer(coordinator, ticket, PLAN), gradient=NAN)
        assert coordinator.accept_result("stranger", 2, result) == Rejection.NOT_HELD
    assert not coordinator.over
    assert coordinator.accept_result("w", 2, answer(coordinator, ticket, PLAN)) is None


def test_a_result_of_somebody_else_is_rejected_however_good_it_is(coordinator: Coordinator, answer: Answer) -> None:
    """Only the worker that holds a ticket may answer it; that it was answered, or is closed, is said first."""
    first, *others = _first_tickets(coordinator)
    coordinator.add_worker("stranger")
    assert coordinator.accept_result("stranger", 2, answer(coordinator, first, PLAN)) == Rejection.NOT_HELD
    assert coordinator.accept_result("w", 2, answer(coordinator, first, PLAN)) is None
    assert coordinator.accept_result("stranger", 2, answer(coordinator, first, PLAN)) == Rejection.DUPLICATE
    for ticket in others:
        assert coordinator.accept_result("w", 2, answer(coordinator, ticket, PLAN)) is None
    assert coordinator.accept_result("stranger", 2, answer(coordinator, first, PLAN)) == Rejection.LATE
    assert coordinator.version == 1


def test_a_worker_that_was_lost_holds_nothing_any_more(coordinator: Coordinator, answer: Answer) -> None:
    """Its result comes too late: the ticket is another one's."""
    ticket = _first_tickets(coordinator)[0]
    coordinator.remove_worker("w")
    coordinator.add_worker("other")
    coordinator.deal_tickets()
    assert coordinator.accept_result("w", 2, answer(coordinator, ticket, PLAN)) == Rejection.NOT_HELD
    assert coordinator.accept_result("other", 2, answer(coordinator, ticket, PLAN)) is None


def test_a_late_result_is_told_from_an_unknown_one(coordinator: Coordinator, answer: Answer) -> None:
    """A ticket of a step or an evaluation that is closed is late."""
    coordinator.add_worker("w")
    while coordinator.version < 4:
        for ticket in coordinator.deal_tickets()["w"]:
            coordinator.accept_result("w", 2, answer(coordinator, ticket, PLAN))
            coordinator.record_rounds()
    late = Ticket(2, TicketKind.GRADIENT, 1), Ticket(3, TicketKind.EVALUATION, 0)
    unknown = Ticket(9, TicketKind.GRADIENT, 0), Ticket(2, TicketKind.EVALUATION, 0), Ticket(2, TicketKind.GRADIENT, 9)
    assert {coordinator.accept_result("w", 2, Result(ticket, 0, SampleSums(0.0, 0))) for ticket in late} == {
        Rejection.LATE
    }
    assert {coordinator.accept_result("w", 2, Result(ticket, 0, SampleSums(0.0, 0))) for ticket in unknown} == {
        Rejection.UNKNOWN_TICKET
    }


def test_a_ticket_that_is_never_finite_fails_the_job_with_advice(coordinator: Coordinator, answer: Answer) -> None:
    """After three rejections of the same ticket the training ends and says what to do."""
    coordinator.add_worker("w")
    for _ in range(3):
        for ticket in coordinator.deal_tickets()["w"]:
            result = answer(coordinator, ticket, PLAN)
            coordinator.accept_result("w", 2, replace(result, gradient=NAN) if ticket.micro_batch == 1 else result)
    assert coordinator.over
    assert not coordinator.ending
    assert "micro-batch 1 of step 0" in coordinator.failure
    assert "training.learning_rate below 0.5" in coordinator.failure
    assert coordinator.diverged
    assert coordinator.deal_tickets() == {}


def test_weights_that_overflow_fail_the_job(make_coordinator: MakeCoordinator) -> None:
    """Finite gradients can still lead to infinite weights; the end of the epoch finds them."""
    coordinator = make_coordinator(ONE_ROW, SIZE, "float32")
    coordinator.shard.parameters[:] = np.finfo(np.float32).max
    (ticket,) = _first_tickets(coordinator)
    with np.errstate(over="ignore"):
        coordinator.accept_result("w", 2, Result(ticket, 0, SampleSums(1.0, 1), np.full(SIZE, -3e38, np.float32)))
    coordinator.record_rounds()
    assert "not finite after epoch 1: the training diverged; give a training.learning_rate" in coordinator.failure
    assert coordinator.diverged


def test_results_that_are_rejected_for_another_reason_are_no_divergence(
    coordinator: Coordinator, answer: Answer
) -> None:
    """Something is wrong with who computes: another attempt may have somebody else."""
    coordinator.add_worker("w")
    for _ in range(3):
        for ticket in coordinator.deal_tickets()["w"]:
            result = answer(coordinator, ticket, PLAN)
            coordinator.accept_result("w", 2, replace(result, gradient=None) if ticket.micro_batch == 1 else result)
    assert "rejected 3 times, the last one as wrong_size" in coordinator.failure
    assert not coordinator.diverged
