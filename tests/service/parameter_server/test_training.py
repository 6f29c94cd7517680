"""The state machine of a training: what is applied, what is refused, and that nothing else matters."""

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from service.parameter_server.telemetry import ACTIVITIES
from service.parameter_server.training import Training
from workers.plan import Plan
from workers.tickets import Refusal, Result, Ticket, TicketKind

MakeTraining = Callable[..., Training]
Answer = Callable[..., Result]

SIZE = 6
PLAN = Plan(rows=10, batch_size=4, micro_batches=3, epochs=2, seed=1, validation_rows=5)


@pytest.fixture
def training(make_training: MakeTraining) -> Training:
    """A training by PLAN."""
    return make_training(PLAN, SIZE)


@pytest.fixture
def run_alone(make_training: MakeTraining, answer: Answer) -> Callable[[], Training]:
    """A training by PLAN that one worker brings to its end."""

    def run() -> Training:
        training = make_training(PLAN, SIZE)
        training.join("only")
        while not training.over:
            for ticket in training.deal()["only"]:
                assert training.take("only", 2, answer(training, ticket, PLAN)) is None
                training.book()
        return training

    return run


def _first_tickets(training: Training) -> list[Ticket]:
    training.join("w")
    return training.deal()["w"]


def test_a_step_is_the_mean_gradient_times_the_learning_rate(training: Training, answer: Answer) -> None:
    """W ← W − ε ∇, with ∇ the sum over all samples divided once by their number."""
    a, b, c = (answer(training, ticket, PLAN) for ticket in _first_tickets(training))
    gradients = [result.gradient.copy() for result in (a, b, c) if result.gradient is not None]
    for result in (a, b, c):
        training.take("w", 2, result)
    assert training.version == 1
    assert np.array_equal(training.parameters, -(((gradients[0] + gradients[1]) + gradients[2]) * (0.5 / 4)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_vector_longer_than_a_block_is_updated_once_everywhere(
    make_training: MakeTraining, dtype: str, parts: int
) -> None:
    """Sum, update and norm go block by block over the vector, the last block shorter, and leave nothing out."""
    size = 128 * 1024 * 2 + 77
    plan = Plan(rows=4, batch_size=4, micro_batches=parts, epochs=1, seed=1)
    training = make_training(plan, size, dtype)
    gradients = [np.random.default_rng(part).normal(size=size).astype(dtype) for part in range(parts)]
    for ticket in _first_tickets(training):
        samples = plan.samples(0, ticket.micro_batch)
        training.take("w", 2, Result(ticket, 0, 1.0, samples, 0, gradients[ticket.micro_batch].copy()))
    total = sum(gradients[1:], start=gradients[0])
    assert training.parameters.tobytes() == (-(total * (0.5 / 4))).tobytes()
    norm = np.linalg.norm(total.astype(np.float64)) / 4
    assert training.progress().gradient_norm == pytest.approx(norm, rel=1e-5)


def test_the_epochs_figures_are_means_over_all_samples(run_alone: Callable[[], Training], answer: Answer) -> None:
    """An epoch end reports the mean training cost, the accuracy, and the evaluation of the weights after it."""
    training = run_alone()
    first, second = training.pop_epoch_ends()
    assert (first.epoch, first.step, first.samples, second.epoch, second.step, second.samples) == (1, 3, 10, 2, 6, 20)
    assert first.validation_cost == pytest.approx(0.5)
    assert first.validation_accuracy == pytest.approx(0.6)
    tickets = [Ticket(step, TicketKind.GRADIENT, part) for step in range(3) for part in range(PLAN.parts(step))]
    costs = [answer(training, ticket, PLAN).cost_sum for ticket in tickets]
    assert first.training_cost == pytest.approx(math.fsum(costs) / 10)
    assert training.pop_epoch_ends() == []


def test_figures_can_be_counted_after_the_next_tickets_are_dealt(training: Training, answer: Answer) -> None:
    """The weights move and the next step opens with the last result; what it means for the figures waits for `book`."""
    for ticket in _first_tickets(training):
        training.take("w", 2, answer(training, ticket, PLAN))
    assert training.version == 1
    assert {ticket.step for ticket in training.deal()["w"]} == {1}
    assert training.totals.samples == 0
    training.book()
    training.book()
    assert training.totals.samples == 4


def test_the_time_of_steps_and_evaluations_is_told_apart(run_alone: Callable[[], Training]) -> None:
    """Each of six steps and two evaluations is counted once, and every activity's time is known."""
    training = run_alone()
    told = training.totals.message([], training.stopwatch.seconds, [])
    assert sum(told.step_seconds_counts) == 6
    assert told.evaluations == 2
    assert min(told.step_seconds_sum, told.evaluation_seconds) > 0
    assert told.server_seconds.keys() == set(ACTIVITIES)
    assert all(told.server_seconds[activity] > 0 for activity in ("inspecting", "reducing", "updating"))


@pytest.mark.parametrize("seed", range(40))
def test_who_works_and_who_is_lost_never_changes_a_bit(
    training: Training, answer: Answer, run_alone: Callable[[], Training], seed: int
) -> None:
    """Any number of workers that join, are lost or answer twice: the weights are those of one worker alone."""
    names, chance = itertools.count(), random.Random(seed)
    held: dict[str, list[Ticket]] = {}
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
            ticket = held[choice].pop(0)
            result, again = (answer(training, ticket, PLAN) for _ in range(2))
            assert training.take(choice, 2, result) is None
            assert training.take(choice, 2, again) in (Refusal.DUPLICATE, Refusal.LATE)
        for worker, tickets in training.deal().items():
            held[worker].extend(tickets)
        training.book()
    assert training.parameters.tobytes() == run_alone().parameters.tobytes()
    assert training.totals.samples == PLAN.rows * PLAN.epochs


def test_a_long_training_makes_few_buffers(make_training: MakeTraining, answer: Answer) -> None:
    """However many steps: as many vectors as results and subtrees are open at a time, each free once at the end."""
    plan = Plan(rows=64, batch_size=8, micro_batches=8, epochs=30, seed=1, validation_rows=5)
    training, chance = make_training(plan, SIZE), random.Random(0)
    training.join("a")
    training.join("b")
    while not training.over:
        tickets = [(worker, ticket) for worker, dealt in training.deal().items() for ticket in dealt]
        for worker, ticket in chance.sample(tickets, len(tickets)):
            result = answer(training, ticket, plan)
            training.take(worker, 2, _received(training, result))
            training.take(worker, 2, _received(training, result))
            training.take(worker, 2, _received(training, replace(result, sample_count=99)))
        training.book()
    assert len(training.buffers._free) == len(set(map(id, training.buffers._free)))
    assert 0 < len(training.buffers._free) <= plan.micro_batches + 1


def _received(training: Training, result: Result) -> Result:
    """The result as it comes over a line that does not share memory."""
    if result.gradient is None:
        return result
    buffer = training.buffers.take()
    np.copyto(buffer, result.gradient)
    return replace(result, gradient=buffer)


NAN = np.full(SIZE, np.nan)
BAD_RESULTS = {
    "nan gradient": (lambda r: replace(r, gradient=NAN), Refusal.NOT_FINITE),
    "infinite gradient": (lambda r: replace(r, gradient=np.full(SIZE, np.inf)), Refusal.NOT_FINITE),
    "one number not finite": (
        lambda r: replace(r, gradient=np.append(np.zeros(SIZE - 1), -np.inf)),
        Refusal.NOT_FINITE,
    ),
    "nan cost": (lambda r: replace(r, cost_sum=math.nan), Refusal.NOT_FINITE),
    "infinite cost": (lambda r: replace(r, cost_sum=-math.inf), Refusal.NOT_FINITE),
    "short gradient": (lambda r: replace(r, gradient=r.gradient[:-1]), Refusal.WRONG_SIZE),
    "matrix": (lambda r: replace(r, gradient=r.gradient.reshape(2, 3)), Refusal.WRONG_SIZE),
    "other dtype": (lambda r: replace(r, gradient=r.gradient.astype("f4")), Refusal.WRONG_SIZE),
    "no gradient": (lambda r: replace(r, gradient=None), Refusal.WRONG_SIZE),
    "too many samples": (lambda r: replace(r, sample_count=r.sample_count + 1), Refusal.WRONG_COUNT),
    "no samples": (lambda r: replace(r, sample_count=0, correct_count=0), Refusal.WRONG_COUNT),
    "more right than there are": (lambda r: replace(r, correct_count=99), Refusal.WRONG_COUNT),
    "computed from other weights": (lambda r: replace(r, version=7), Refusal.WRONG_VERSION),
    "unknown step": (lambda r: replace(r, ticket=r.ticket._replace(step=1)), Refusal.UNKNOWN_TICKET),
    "a step beyond all": (lambda r: replace(r, ticket=r.ticket._replace(step=2**64 - 1)), Refusal.UNKNOWN_TICKET),
    "unknown part": (lambda r: replace(r, ticket=r.ticket._replace(micro_batch=3)), Refusal.UNKNOWN_TICKET),
    "unknown kind": (lambda r: replace(r, ticket=r.ticket._replace(kind=0)), Refusal.UNKNOWN_TICKET),
    "evaluation not due": (lambda r: replace(r, ticket=Ticket(3, TicketKind.EVALUATION, 0)), Refusal.UNKNOWN_TICKET),
    "evaluation of nothing": (lambda r: replace(r, ticket=Ticket(0, TicketKind.EVALUATION, 0)), Refusal.UNKNOWN_TICKET),
}


@pytest.mark.parametrize("name", BAD_RESULTS)
def test_a_bad_result_is_refused_with_its_reason_and_changes_nothing(
    training: Training, answer: Answer, name: str
) -> None:
    """The weights, the version and the ledger are as before; the right result is taken afterwards."""
    spoil, refusal = BAD_RESULTS[name]
    ticket = _first_tickets(training)[0]
    assert training.take("w", 2, spoil(answer(training, ticket, PLAN))) == refusal
    assert not training.parameters.any()
    assert training.version == 0
    assert training.totals.refused == {refusal: 1}
    assert training.take("w", 2, answer(training, ticket, PLAN)) is None


def test_large_gradients_are_not_mistaken_for_infinite_ones(make_training: MakeTraining) -> None:
    """Numbers whose squares overflow are finite all the same."""
    plan = Plan(rows=1, batch_size=1, micro_batches=1, epochs=1, seed=1)
    training = make_training(plan, SIZE, "float32")
    (ticket,) = _first_tickets(training)
    with np.errstate(over="ignore"):
        assert training.take("w", 2, Result(ticket, 0, 1.0, 1, 0, np.full(SIZE, 3e38, np.float32))) is None


def test_a_result_of_another_attempt_is_refused(training: Training, answer: Answer) -> None:
    """Only results of this attempt count."""
    ticket = _first_tickets(training)[0]
    assert training.take("w", 1, answer(training, ticket, PLAN)) == Refusal.WRONG_ATTEMPT


def test_a_refused_ticket_is_given_out_again(training: Training, answer: Answer) -> None:
    """To whoever is free next, also when the refused worker has others to answer."""
    first, second, third = _first_tickets(training)
    training.take("w", 2, replace(answer(training, first, PLAN), gradient=NAN))
    training.join("free")
    assert training.deal() == {"free": [first]}
    for worker, ticket in (("w", second), ("free", first), ("w", third)):
        assert training.take(worker, 2, answer(training, ticket, PLAN)) is None
    assert training.version == 1


def test_refusals_of_what_a_worker_does_not_hold_fail_nothing(training: Training, answer: Answer) -> None:
    """Only results for tickets that a worker holds count against the job."""
    ticket = _first_tickets(training)[0]
    training.join("stranger")
    for _ in range(5):
        result = replace(answer(training, ticket, PLAN), gradient=NAN)
        assert training.take("stranger", 2, result) == Refusal.NOT_FINITE
    assert not training.over
    assert training.take("w", 2, answer(training, ticket, PLAN)) is None


def test_a_late_result_is_told_from_an_unknown_one(run_alone: Callable[[], Training]) -> None:
    """A ticket of a step or an evaluation that is closed is late."""
    training = run_alone()
    late = Ticket(2, TicketKind.GRADIENT, 1), Ticket(3, TicketKind.EVALUATION, 0)
    unknown = Ticket(9, TicketKind.GRADIENT, 0), Ticket(2, TicketKind.EVALUATION, 0), Ticket(2, TicketKind.GRADIENT, 9)
    assert {training.take("w", 2, Result(ticket, 0, 0.0, 0, 0)) for ticket in late} == {Refusal.LATE}
    assert {training.take("w", 2, Result(ticket, 0, 0.0, 0, 0)) for ticket in unknown} == {Refusal.UNKNOWN_TICKET}


def test_a_ticket_that_is_never_finite_fails_the_job_with_advice(training: Training, answer: Answer) -> None:
    """After three refusals of the same ticket the training ends and says what to do."""
    training.join("w")
    for _ in range(3):
        for ticket in training.deal()["w"]:
            result = answer(training, ticket, PLAN)
            training.take("w", 2, replace(result, gradient=NAN) if ticket.micro_batch == 1 else result)
    assert training.over
    assert not training.finished
    assert "micro-batch 1 of step 0" in training.failure
    assert "training.learning_rate below 0.5" in training.failure
    assert training.deal() == {}


def test_weights_that_overflow_fail_the_job(make_training: MakeTraining) -> None:
    """Finite gradients can still lead to infinite weights; the end of the epoch finds them."""
    plan = Plan(rows=1, batch_size=1, micro_batches=1, epochs=1, seed=1)
    training = make_training(plan, SIZE, "float32")
    training.parameters[:] = np.finfo(np.float32).max
    (ticket,) = _first_tickets(training)
    with np.errstate(over="ignore"):
        training.take("w", 2, Result(ticket, 0, 1.0, 1, 0, np.full(SIZE, -3e38, np.float32)))
    training.book()
    assert "not finite after epoch 1" in training.failure


def test_a_lost_worker_is_counted_only_while_there_is_work(
    training: Training, run_alone: Callable[[], Training]
) -> None:
    """Workers that leave when all is done are not lost."""
    training.join("a")
    training.leave("a")
    done = run_alone()
    done.leave("only")
    assert (training.totals.workers_lost, done.totals.workers_lost) == (1, 0)
