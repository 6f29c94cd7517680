"""Results that are not taken, what is said of them, and when there is no point in going on."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from service.parameter_server.training import Training
from workers.mathematics.sums import SampleSums
from workers.plan import Plan
from workers.transport.tickets import Rejection, Result, Ticket, TicketKind

MakeTraining = Callable[..., Training]
Answer = Callable[..., Result]

SIZE = 6
PLAN = Plan(rows=10, batch_size=4, micro_batches=3, epochs=2, seed=1, validation_rows=5)
ONE_ROW = Plan(rows=1, batch_size=1, micro_batches=1, epochs=1, seed=1)


@pytest.fixture
def training(make_training: MakeTraining) -> Training:
    """A training by PLAN."""
    return make_training(PLAN, SIZE)


def _first_tickets(training: Training) -> list[Ticket]:
    training.add_worker("w")
    return training.deal_tickets()["w"]


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
    training: Training, answer: Answer, name: str
) -> None:
    """The weights, the version and the ledger are as before; the right result is taken afterwards."""
    spoil, rejection = BAD_RESULTS[name]
    ticket = _first_tickets(training)[0]
    assert training.accept_result("w", 2, spoil(answer(training, ticket, PLAN))) == rejection
    assert not training.parameters.any()
    assert training.version == 0
    assert training.rejected == {rejection: 1}
    training.add_worker("next")
    holder = "next" if training.deal_tickets() else "w"  # a ticket that was held is dealt again
    assert training.accept_result(holder, 2, answer(training, ticket, PLAN)) is None


def test_large_gradients_are_not_mistaken_for_infinite_ones(make_training: MakeTraining) -> None:
    """Numbers whose squares overflow are finite all the same."""
    training = make_training(ONE_ROW, SIZE, "float32")
    (ticket,) = _first_tickets(training)
    with np.errstate(over="ignore"):
        assert (
            training.accept_result("w", 2, Result(ticket, 0, SampleSums(1.0, 1), np.full(SIZE, 3e38, np.float32)))
            is None
        )


def test_a_result_of_another_attempt_is_refused(training: Training, answer: Answer) -> None:
    """Only results of this attempt count."""
    ticket = _first_tickets(training)[0]
    assert training.accept_result("w", 1, answer(training, ticket, PLAN)) == Rejection.WRONG_ATTEMPT


def test_a_rejected_ticket_is_given_out_again(training: Training, answer: Answer) -> None:
    """To whoever is free next, also when the rejected worker has others to answer."""
    first, second, third = _first_tickets(training)
    training.accept_result("w", 2, replace(answer(training, first, PLAN), gradient=NAN))
    training.add_worker("free")
    assert training.deal_tickets() == {"free": [first]}
    for worker, ticket in (("w", second), ("free", first), ("w", third)):
        assert training.accept_result(worker, 2, answer(training, ticket, PLAN)) is None
    assert training.version == 1


def test_rejections_of_what_a_worker_does_not_hold_fail_nothing(training: Training, answer: Answer) -> None:
    """Only results for tickets that a worker holds count against the job."""
    ticket = _first_tickets(training)[0]
    training.add_worker("stranger")
    for _ in range(5):
        result = replace(answer(training, ticket, PLAN), gradient=NAN)
        assert training.accept_result("stranger", 2, result) == Rejection.NOT_HELD
    assert not training.over
    assert training.accept_result("w", 2, answer(training, ticket, PLAN)) is None


def test_a_result_of_somebody_else_is_rejected_however_good_it_is(training: Training, answer: Answer) -> None:
    """Only the worker that holds a ticket may answer it; that it was answered, or is closed, is said first."""
    first, *others = _first_tickets(training)
    training.add_worker("stranger")
    assert training.accept_result("stranger", 2, answer(training, first, PLAN)) == Rejection.NOT_HELD
    assert training.accept_result("w", 2, answer(training, first, PLAN)) is None
    assert training.accept_result("stranger", 2, answer(training, first, PLAN)) == Rejection.DUPLICATE
    for ticket in others:
        assert training.accept_result("w", 2, answer(training, ticket, PLAN)) is None
    assert training.accept_result("stranger", 2, answer(training, first, PLAN)) == Rejection.LATE
    assert training.version == 1


def test_a_worker_that_was_lost_holds_nothing_any_more(training: Training, answer: Answer) -> None:
    """Its result comes too late: the ticket is another one's."""
    ticket = _first_tickets(training)[0]
    training.remove_worker("w")
    training.add_worker("other")
    training.deal_tickets()
    assert training.accept_result("w", 2, answer(training, ticket, PLAN)) == Rejection.NOT_HELD
    assert training.accept_result("other", 2, answer(training, ticket, PLAN)) is None


def test_a_late_result_is_told_from_an_unknown_one(training: Training, answer: Answer) -> None:
    """A ticket of a step or an evaluation that is closed is late."""
    training.add_worker("w")
    while training.version < 4:
        for ticket in training.deal_tickets()["w"]:
            training.accept_result("w", 2, answer(training, ticket, PLAN))
            training.record_rounds()
    late = Ticket(2, TicketKind.GRADIENT, 1), Ticket(3, TicketKind.EVALUATION, 0)
    unknown = Ticket(9, TicketKind.GRADIENT, 0), Ticket(2, TicketKind.EVALUATION, 0), Ticket(2, TicketKind.GRADIENT, 9)
    assert {training.accept_result("w", 2, Result(ticket, 0, SampleSums(0.0, 0))) for ticket in late} == {
        Rejection.LATE
    }
    assert {training.accept_result("w", 2, Result(ticket, 0, SampleSums(0.0, 0))) for ticket in unknown} == {
        Rejection.UNKNOWN_TICKET
    }


def test_a_ticket_that_is_never_finite_fails_the_job_with_advice(training: Training, answer: Answer) -> None:
    """After three rejections of the same ticket the training ends and says what to do."""
    training.add_worker("w")
    for _ in range(3):
        for ticket in training.deal_tickets()["w"]:
            result = answer(training, ticket, PLAN)
            training.accept_result("w", 2, replace(result, gradient=NAN) if ticket.micro_batch == 1 else result)
    assert training.over
    assert not training.ending
    assert "micro-batch 1 of step 0" in training.failure
    assert "training.learning_rate below 0.5" in training.failure
    assert training.diverged
    assert training.deal_tickets() == {}


def test_weights_that_overflow_fail_the_job(make_training: MakeTraining) -> None:
    """Finite gradients can still lead to infinite weights; the end of the epoch finds them."""
    training = make_training(ONE_ROW, SIZE, "float32")
    training.parameters[:] = np.finfo(np.float32).max
    (ticket,) = _first_tickets(training)
    with np.errstate(over="ignore"):
        training.accept_result("w", 2, Result(ticket, 0, SampleSums(1.0, 1), np.full(SIZE, -3e38, np.float32)))
    training.record_rounds()
    assert "not finite after epoch 1: the training diverged; give a training.learning_rate" in training.failure
    assert training.diverged


def test_results_that_are_rejected_for_another_reason_are_no_divergence(training: Training, answer: Answer) -> None:
    """Something is wrong with who computes: another attempt may have somebody else."""
    training.add_worker("w")
    for _ in range(3):
        for ticket in training.deal_tickets()["w"]:
            result = answer(training, ticket, PLAN)
            training.accept_result("w", 2, replace(result, gradient=None) if ticket.micro_batch == 1 else result)
    assert "rejected 3 times, the last one as wrong_size" in training.failure
    assert not training.diverged
