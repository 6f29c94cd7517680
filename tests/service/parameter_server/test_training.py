"""The state machine of a training: what is applied, what is refused, and that nothing else matters."""

import itertools
import math
import random

import numpy as np
import pytest

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.policies import Sync
from service.parameter_server.training import Training
from workers.mathematics.optimizers import optimizer
from workers.plan import Plan

SIZE = 6
PLAN = Plan(rows=10, batch_size=4, micro_batches=3, epochs=2, seed=1, validation_rows=5)


def _training(plan: Plan = PLAN, dtype: str = "float64") -> Training:
    clock = itertools.count()
    return Training(
        plan,
        Sync(),
        optimizer("sgd", 0.5),
        np.zeros(SIZE, dtype),
        attempt=2,
        learning_rate=0.5,
        labelled=True,
        clock=lambda: float(next(clock)),
    )


def _answer(training: Training, ticket: ps_pb.Ticket, plan: Plan = PLAN) -> ps_pb.Result:
    """A result that depends on the ticket alone, as a worker's does."""
    if ticket.kind == ps_pb.TICKET_KIND_EVALUATION:
        rows = plan.evaluation(ticket.micro_batch)
        count = rows.stop - rows.start
        return ps_pb.Result(ticket=ticket, version=ticket.version, cost_sum=2.5, sample_count=count, correct_count=3)
    generator = np.random.default_rng([ticket.step, ticket.micro_batch])
    gradient = (generator.normal(size=SIZE) * 10.0 ** generator.integers(-5, 5, SIZE)).astype(training.parameters.dtype)
    return ps_pb.Result(
        ticket=ticket,
        cost_sum=float(generator.normal()),
        sample_count=plan.samples(ticket.step, ticket.micro_batch),
        correct_count=1,
        gradient=gradient.tobytes(),
        version=ticket.version,
    )


def _first_ticket(training: Training) -> ps_pb.Ticket:
    training.join("w")
    return training.deal()["w"][0]


def _run_alone(plan: Plan = PLAN) -> Training:
    training = _training(plan)
    training.join("only")
    while not training.over:
        for ticket in training.deal()["only"]:
            assert training.take("only", 2, _answer(training, ticket, plan)).accepted
    return training


def test_a_step_is_the_mean_gradient_times_the_learning_rate() -> None:
    """W ← W − ε ∇, with ∇ the sum over all samples divided once by their number."""
    training = _training()
    tickets = (training.join("w"), training.deal()["w"])[1]
    results = [_answer(training, ticket) for ticket in tickets]
    for result in results:
        training.take("w", 2, result)
    a, b, c = (np.frombuffer(result.gradient) for result in results)
    assert training.version == 1
    assert np.array_equal(training.parameters, -0.5 * (((a + b) + c) / 4))


def test_the_epochs_figures_are_means_over_all_samples() -> None:
    """An epoch end reports the mean training cost, the accuracy, and the evaluation of the weights after it."""
    training = _run_alone()
    first, second = training.pop_epoch_ends()
    assert (first.epoch, first.step, first.samples, second.epoch, second.step, second.samples) == (1, 3, 10, 2, 6, 20)
    assert first.validation_cost == pytest.approx(0.5)
    assert first.validation_accuracy == pytest.approx(0.6)
    costs = [
        _answer(training, ps_pb.Ticket(kind=1, step=step, micro_batch=part)).cost_sum
        for step in range(3)
        for part in range(PLAN.parts(step))
    ]
    assert first.training_cost == pytest.approx(math.fsum(costs) / 10)
    assert training.pop_epoch_ends() == []


@pytest.mark.parametrize("seed", range(40))
def test_who_works_and_who_is_lost_never_changes_a_bit(seed: int) -> None:
    """Any number of workers that join, are lost or answer twice: the weights are those of one worker alone."""
    training, names, chance = _training(), itertools.count(), random.Random(seed)
    held: dict[str, list[ps_pb.Ticket]] = {}
    while not training.over:
        busy = [name for name, tickets in held.items() if tickets]
        choice = chance.choice([*busy, "join"] if len(held) < 4 else busy)
        if choice == "join":
            choice = f"w{next(names)}"
            held[choice] = []
            training.join(choice)
        elif chance.random() < 0.2:
            training.leave(choice)
            del held[choice]
        else:
            result = _answer(training, held[choice].pop(0))
            assert training.take(choice, 2, result).accepted
            again = training.take(choice, 2, result)
            assert again.refusal in (ps_pb.REFUSAL_DUPLICATE, ps_pb.REFUSAL_LATE)
        for worker, tickets in training.deal().items():
            held[worker].extend(tickets)
    assert training.parameters.tobytes() == _run_alone().parameters.tobytes()
    assert training.totals.samples == PLAN.rows * PLAN.epochs


def _with_gradient(result: ps_pb.Result, data: bytes) -> ps_pb.Result:
    return _changed(result, gradient=data)


def _changed(result: ps_pb.Result, **fields: object) -> ps_pb.Result:
    for name, value in fields.items():
        setattr(result, name, value)
    return result


def _ticket_changed(result: ps_pb.Result, **fields: int) -> ps_pb.Result:
    for name, value in fields.items():
        setattr(result.ticket, name, value)
    return result


NAN = np.full(SIZE, np.nan).tobytes()
BAD_RESULTS = {
    "nan gradient": (lambda r: _with_gradient(r, NAN), ps_pb.REFUSAL_NOT_FINITE),
    "infinite gradient": (lambda r: _with_gradient(r, np.full(SIZE, np.inf).tobytes()), ps_pb.REFUSAL_NOT_FINITE),
    "nan cost": (lambda r: _changed(r, cost_sum=math.nan), ps_pb.REFUSAL_NOT_FINITE),
    "short gradient": (lambda r: _with_gradient(r, r.gradient[:-8]), ps_pb.REFUSAL_WRONG_SIZE),
    "odd bytes": (lambda r: _with_gradient(r, r.gradient[:-3]), ps_pb.REFUSAL_WRONG_SIZE),
    "other dtype": (lambda r: _with_gradient(r, np.zeros(SIZE, "f4").tobytes()), ps_pb.REFUSAL_WRONG_SIZE),
    "no gradient": (lambda r: _with_gradient(r, b""), ps_pb.REFUSAL_WRONG_SIZE),
    "too many samples": (lambda r: _changed(r, sample_count=r.sample_count + 1), ps_pb.REFUSAL_WRONG_COUNT),
    "more right than there are": (lambda r: _changed(r, correct_count=99), ps_pb.REFUSAL_WRONG_COUNT),
    "a ticket for other weights": (lambda r: _ticket_changed(r, version=7), ps_pb.REFUSAL_WRONG_VERSION),
    "computed from other weights": (lambda r: _changed(r, version=7), ps_pb.REFUSAL_WRONG_VERSION),
    "unknown step": (lambda r: _ticket_changed(r, step=1), ps_pb.REFUSAL_UNKNOWN_TICKET),
    "unknown part": (lambda r: _ticket_changed(r, micro_batch=3), ps_pb.REFUSAL_UNKNOWN_TICKET),
    "unknown kind": (lambda r: _ticket_changed(r, kind=0), ps_pb.REFUSAL_UNKNOWN_TICKET),
    "evaluation not due": (lambda r: _ticket_changed(r, kind=2, step=3), ps_pb.REFUSAL_UNKNOWN_TICKET),
}


@pytest.mark.parametrize("name", BAD_RESULTS)
def test_a_bad_result_is_refused_with_its_reason_and_changes_nothing(name: str) -> None:
    """The weights, the version and the ledger are as before; the right result is taken afterwards."""
    spoil, refusal = BAD_RESULTS[name]
    training = _training()
    ticket = _first_ticket(training)
    acknowledgement = training.take("w", 2, spoil(_answer(training, ticket)))
    assert acknowledgement == ps_pb.Acknowledgement(accepted=False, refusal=refusal)
    assert not training.parameters.any()
    assert training.version == 0
    assert training.totals.refused == {refusal: 1}
    assert training.take("w", 2, _answer(training, ticket)).accepted


def test_a_result_of_another_attempt_is_refused() -> None:
    """Only results of this attempt count."""
    training = _training()
    ticket = _first_ticket(training)
    assert training.take("w", 1, _answer(training, ticket)).refusal == ps_pb.REFUSAL_WRONG_ATTEMPT


def test_refusals_of_what_a_worker_does_not_hold_fail_nothing() -> None:
    """Only results for tickets that a worker holds count against the job."""
    training = _training()
    training.join("holder")
    tickets = training.deal()["holder"]
    training.join("stranger")
    for _ in range(5):
        result = _with_gradient(_answer(training, tickets[0]), NAN)
        assert training.take("stranger", 2, result).refusal == ps_pb.REFUSAL_NOT_FINITE
    assert not training.over
    assert training.take("holder", 2, _answer(training, tickets[0])).accepted


def test_a_late_result_is_told_from_an_unknown_one() -> None:
    """A ticket of a step or an evaluation that is closed is late."""
    training = _run_alone()
    gradient, evaluation = ps_pb.Ticket(kind=1, step=2, micro_batch=1), ps_pb.Ticket(kind=2, step=3, micro_batch=0)
    for ticket in (gradient, evaluation):
        assert training.take("w", 2, ps_pb.Result(ticket=ticket)).refusal == ps_pb.REFUSAL_LATE
    for ticket in (
        ps_pb.Ticket(kind=1, step=9),
        ps_pb.Ticket(kind=2, step=2),
        ps_pb.Ticket(kind=1, step=2, micro_batch=9),
    ):
        assert training.take("w", 2, ps_pb.Result(ticket=ticket)).refusal == ps_pb.REFUSAL_UNKNOWN_TICKET


def test_a_ticket_that_is_never_finite_fails_the_job_with_advice() -> None:
    """After three refusals of the same ticket the training ends and says what to do."""
    training = _training()
    training.join("w")
    for _ in range(3):
        for ticket in training.deal()["w"]:
            result = _answer(training, ticket)
            training.take("w", 2, _with_gradient(result, NAN) if ticket.micro_batch == 1 else result)
    assert training.over
    assert not training.finished
    assert "micro-batch 1 of step 0" in training.failure
    assert "training.learning_rate below 0.5" in training.failure
    assert training.deal() == {}


def test_weights_that_overflow_fail_the_job() -> None:
    """Finite gradients can still lead to infinite weights; the end of the epoch finds them."""
    plan = Plan(rows=1, batch_size=1, micro_batches=1, epochs=1, seed=1)
    training = _training(plan, "float32")
    training.parameters[:] = np.finfo(np.float32).max
    result = _answer(training, _first_ticket(training), plan)
    with np.errstate(over="ignore"):
        training.take("w", 2, _with_gradient(result, np.full(SIZE, -3e38, np.float32).tobytes()))
    assert "not finite after epoch 1" in training.failure


def test_a_lost_worker_is_counted_only_while_there_is_work() -> None:
    """Workers that leave when all is done are not lost."""
    training = _training()
    training.join("a")
    training.leave("a")
    done = _run_alone()
    done.leave("only")
    assert (training.totals.workers_lost, done.totals.workers_lost) == (1, 0)
