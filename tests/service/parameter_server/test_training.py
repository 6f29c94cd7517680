"""The state machine of a training: what is applied, what is rejected, and that nothing else matters."""

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from service.parameter_server.progress.attempt_statistics import ACTIVITIES
from service.parameter_server.shard.reduction import GradientBuffers
from service.parameter_server.training import Training
from workers.mathematics.optimizers import optimizer
from workers.mathematics.sums import SampleSums
from workers.plan import Plan
from workers.transport.tickets import Rejection, Result, Ticket, TicketKind

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
        training.add_worker("only")
        while not training.over:
            for ticket in training.deal_tickets()["only"]:
                assert training.accept_result("only", 2, answer(training, ticket, PLAN)) is None
                training.record_rounds()
        return training

    return run


def _first_tickets(training: Training) -> list[Ticket]:
    training.add_worker("w")
    return training.deal_tickets()["w"]


def test_a_step_is_the_mean_gradient_times_the_learning_rate(training: Training, answer: Answer) -> None:
    """W ← W − ε ∇, with ∇ the sum over all samples divided once by their number."""
    a, b, c = (answer(training, ticket, PLAN) for ticket in _first_tickets(training))
    gradients = [result.gradient.copy() for result in (a, b, c) if result.gradient is not None]
    for result in (a, b, c):
        training.accept_result("w", 2, result)
    assert training.version == 1
    assert np.array_equal(training.parameters, -(((gradients[0] + gradients[1]) + gradients[2]) * (0.5 / 4)))


def test_everybody_asks_the_optimizer_for_the_learning_rate(make_training: MakeTraining) -> None:
    """The update, the progress and the history of a step have the ε that the optimizer has for this step."""
    plan = Plan(rows=3, batch_size=1, micro_batches=1, epochs=1, seed=1)
    falling = replace(optimizer("sgd", 0.5), learning_rate=lambda step: 1 / 2**step)
    training, weight = make_training(plan, 1, update_rule=falling), 0.0
    assert training.progress().learning_rate == 1 / 2
    training.add_worker("w")
    for step in (1, 2, 3):
        (ticket,) = training.deal_tickets()["w"]
        training.accept_result("w", 2, Result(ticket, training.version, SampleSums(1.0, 1), np.ones(1)))
        training.record_rounds()
        weight -= 1 / 2**step
        (point,) = (told.step for told in training.pop_events() if told.HasField("step"))
        assert (training.parameters[0], point.step) == (weight, step)
        assert training.progress().learning_rate == point.learning_rate == 1 / 2**step


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
        training.accept_result(
            "w", 2, Result(ticket, 0, SampleSums(1.0, samples), gradients[ticket.micro_batch].copy())
        )
    total = sum(gradients[1:], start=gradients[0])
    assert training.parameters.tobytes() == (-(total * (0.5 / 4))).tobytes()
    norm = np.linalg.norm(total.astype(np.float64)) / 4
    assert training.progress().gradient_norm == pytest.approx(norm, rel=1e-5)


def test_the_epochs_statistics_are_means_over_all_samples(run_alone: Callable[[], Training], answer: Answer) -> None:
    """An epoch end reports the mean training cost, the accuracy, and the evaluation of the weights after it."""
    training = run_alone()
    told = training.pop_events()
    first, second = (event.epoch_end.progress for event in told if event.HasField("epoch_end"))
    assert (first.epoch, first.step, first.samples, second.epoch, second.step, second.samples) == (1, 3, 10, 2, 6, 20)
    assert first.validation.cost == pytest.approx(0.5)
    assert first.validation.accuracy == pytest.approx(0.6)
    tickets = [Ticket(step, TicketKind.GRADIENT, part) for step in range(3) for part in range(PLAN.parts(step))]
    costs = [answer(training, ticket, PLAN).sums.cost_sum for ticket in tickets]
    assert first.training.cost == pytest.approx(math.fsum(costs) / 10)
    assert training.pop_events() == []


def test_statistics_can_be_counted_after_the_next_tickets_are_dealt(training: Training, answer: Answer) -> None:
    """The weights move and the next step opens with the last result; what it means for the metrics waits."""
    for ticket in _first_tickets(training):
        training.accept_result("w", 2, answer(training, ticket, PLAN))
    assert training.version == 1
    assert {ticket.step for ticket in training.deal_tickets()["w"]} == {1}
    assert training.progress().samples == 0
    training.record_rounds()
    training.record_rounds()
    assert training.progress().samples == 4


def test_the_time_of_steps_and_evaluations_is_told_apart(run_alone: Callable[[], Training]) -> None:
    """Each of six steps and two evaluations is counted once, and every activity's time is known."""
    training = run_alone()
    told = training.counters.message([], training.stopwatch.seconds, [], {})
    training.steps.write_to(told)
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
            training.add_worker(choice)
        elif chance.random() < 0.2:
            training.remove_worker(choice)
            del held[choice]
        else:
            ticket = held[choice].pop(0)
            result, again = (answer(training, ticket, PLAN) for _ in range(2))
            assert training.accept_result(choice, 2, result) is None
            assert training.accept_result(choice, 2, again) in (Rejection.DUPLICATE, Rejection.LATE)
        for worker, tickets in training.deal_tickets().items():
            held[worker].extend(tickets)
        training.record_rounds()
    assert training.parameters.tobytes() == run_alone().parameters.tobytes()
    assert training.progress().samples == PLAN.rows * PLAN.epochs


def test_a_long_training_makes_few_buffers(make_training: MakeTraining, answer: Answer) -> None:
    """However many steps: as many vectors as results and subtrees are open at a time, each free once at the end."""
    plan = Plan(rows=64, batch_size=8, micro_batches=8, epochs=30, seed=1, validation_rows=5)
    training, chance = make_training(plan, SIZE), random.Random(0)
    made = _count_made(training.buffers)
    training.add_worker("a")
    training.add_worker("b")
    while not training.over:
        tickets = [(worker, ticket) for worker, dealt in training.deal_tickets().items() for ticket in dealt]
        for worker, ticket in chance.sample(tickets, len(tickets)):
            result = answer(training, ticket, plan)
            training.accept_result(worker, 2, _received(training, result))
            training.accept_result(worker, 2, _received(training, result))
            training.accept_result(
                worker, 2, _received(training, replace(result, sums=replace(result.sums, samples=99)))
            )
        training.record_rounds()
    assert len(set(map(id, training.buffers._free))) == len(training.buffers._free) == made()
    assert made() <= plan.micro_batches


def _count_made(buffers: GradientBuffers) -> Callable[[], int]:
    """How many vectors are made from now on."""
    take, made = buffers.lend_buffer, []

    def count() -> np.ndarray:
        made.append(not buffers._free)
        return take()

    buffers.lend_buffer = count  # type: ignore[method-assign]
    return lambda: sum(made)


def _received(training: Training, result: Result) -> Result:
    """The result as it comes over a connection that does not share memory."""
    if result.gradient is None:
        return result
    buffer = training.buffers.lend_buffer()
    np.copyto(buffer, result.gradient)
    return replace(result, gradient=buffer)


def test_a_lost_worker_is_counted_only_while_there_is_work(
    training: Training, run_alone: Callable[[], Training]
) -> None:
    """Workers that leave when all is done, or when there are too many, are not lost."""
    training.add_worker("a")
    training.remove_worker("a")
    training.add_worker("b")
    training.remove_worker("b", lost=False)
    done = run_alone()
    done.remove_worker("only")
    assert (training.counters.workers_lost, done.counters.workers_lost) == (1, 0)
