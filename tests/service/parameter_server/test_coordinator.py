"""The state machine of a training: what is applied, what is rejected, and that nothing else matters."""

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from service.parameter_server.coordinator import Coordinator
from service.parameter_server.progress.attempt_statistics import ACTIVITIES
from service.parameter_server.shard.reduction import GradientBuffers
from workers.mathematics.optimizers import optimizer
from workers.mathematics.sums import SampleSums
from workers.plan import Plan
from workers.transport.tickets import Rejection, Result, Ticket, TicketKind

MakeCoordinator = Callable[..., Coordinator]
Answer = Callable[..., Result]

SIZE = 6
PLAN = Plan(rows=10, batch_size=4, micro_batches=3, epochs=2, seed=1, validation_rows=5)


@pytest.fixture
def coordinator(make_coordinator: MakeCoordinator) -> Coordinator:
    """A training by PLAN."""
    return make_coordinator(PLAN, SIZE)


@pytest.fixture
def run_alone(make_coordinator: MakeCoordinator, answer: Answer) -> Callable[[], Coordinator]:
    """A training by PLAN that one worker brings to its end."""

    def run() -> Coordinator:
        coordinator = make_coordinator(PLAN, SIZE)
        coordinator.add_worker("only")
        while not coordinator.over:
            for ticket in coordinator.deal_tickets()["only"]:
                assert coordinator.accept_result("only", 2, answer(coordinator, ticket, PLAN)) is None
                coordinator.record_rounds()
        return coordinator

    return run


def _first_tickets(coordinator: Coordinator) -> list[Ticket]:
    coordinator.add_worker("w")
    return coordinator.deal_tickets()["w"]


def test_a_step_is_the_mean_gradient_times_the_learning_rate(coordinator: Coordinator, answer: Answer) -> None:
    """W ← W − ε ∇, with ∇ the sum over all samples divided once by their number."""
    a, b, c = (answer(coordinator, ticket, PLAN) for ticket in _first_tickets(coordinator))
    gradients = [result.gradient.copy() for result in (a, b, c) if result.gradient is not None]
    for result in (a, b, c):
        coordinator.accept_result("w", 2, result)
    assert coordinator.version == 1
    assert np.array_equal(coordinator.shard.parameters, -(((gradients[0] + gradients[1]) + gradients[2]) * (0.5 / 4)))


def test_everybody_asks_the_optimizer_for_the_learning_rate(make_coordinator: MakeCoordinator) -> None:
    """The update, the progress and the history of a step have the ε that the optimizer has for this step."""
    plan = Plan(rows=3, batch_size=1, micro_batches=1, epochs=1, seed=1)
    falling = replace(optimizer("sgd", 0.5), learning_rate=lambda step: 1 / 2**step)
    coordinator, weight = make_coordinator(plan, 1, update_rule=falling), 0.0
    assert coordinator.progress().learning_rate == 1 / 2
    coordinator.add_worker("w")
    for step in (1, 2, 3):
        (ticket,) = coordinator.deal_tickets()["w"]
        coordinator.accept_result("w", 2, Result(ticket, coordinator.version, SampleSums(1.0, 1), np.ones(1)))
        coordinator.record_rounds()
        weight -= 1 / 2**step
        (point,) = (told.step for told in coordinator.pop_events() if told.HasField("step"))
        assert (coordinator.shard.parameters[0], point.step) == (weight, step)
        assert coordinator.progress().learning_rate == point.learning_rate == 1 / 2**step


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_vector_longer_than_a_block_is_updated_once_everywhere(
    make_coordinator: MakeCoordinator, dtype: str, parts: int
) -> None:
    """Sum, update and norm go block by block over the vector, the last block shorter, and leave nothing out."""
    size = 128 * 1024 * 2 + 77
    plan = Plan(rows=4, batch_size=4, micro_batches=parts, epochs=1, seed=1)
    coordinator = make_coordinator(plan, size, dtype)
    gradients = [np.random.default_rng(part).normal(size=size).astype(dtype) for part in range(parts)]
    for ticket in _first_tickets(coordinator):
        samples = plan.samples(0, ticket.micro_batch)
        coordinator.accept_result(
            "w", 2, Result(ticket, 0, SampleSums(1.0, samples), gradients[ticket.micro_batch].copy())
        )
    total = sum(gradients[1:], start=gradients[0])
    assert coordinator.shard.parameters.tobytes() == (-(total * (0.5 / 4))).tobytes()
    norm = np.linalg.norm(total.astype(np.float64)) / 4
    assert coordinator.progress().gradient_norm == pytest.approx(norm, rel=1e-5)


def test_the_epochs_statistics_are_means_over_all_samples(run_alone: Callable[[], Coordinator], answer: Answer) -> None:
    """An epoch end reports the mean training cost, the accuracy, and the evaluation of the weights after it."""
    coordinator = run_alone()
    told = coordinator.pop_events()
    first, second = (event.epoch_end.progress for event in told if event.HasField("epoch_end"))
    assert (first.epoch, first.step, first.samples, second.epoch, second.step, second.samples) == (1, 3, 10, 2, 6, 20)
    assert first.validation.cost == pytest.approx(0.5)
    assert first.validation.accuracy == pytest.approx(0.6)
    tickets = [Ticket(step, TicketKind.GRADIENT, part) for step in range(3) for part in range(PLAN.parts(step))]
    costs = [answer(coordinator, ticket, PLAN).sums.cost_sum for ticket in tickets]
    assert first.training.cost == pytest.approx(math.fsum(costs) / 10)
    assert coordinator.pop_events() == []


def test_statistics_can_be_counted_after_the_next_tickets_are_dealt(coordinator: Coordinator, answer: Answer) -> None:
    """The weights move and the next step opens with the last result; what it means for the metrics waits."""
    for ticket in _first_tickets(coordinator):
        coordinator.accept_result("w", 2, answer(coordinator, ticket, PLAN))
    assert coordinator.version == 1
    assert {ticket.step for ticket in coordinator.deal_tickets()["w"]} == {1}
    assert coordinator.progress().samples == 0
    coordinator.record_rounds()
    coordinator.record_rounds()
    assert coordinator.progress().samples == 4


def test_the_time_of_steps_and_evaluations_is_told_apart(run_alone: Callable[[], Coordinator]) -> None:
    """Each of six steps and two evaluations is counted once, and every activity's time is known."""
    coordinator = run_alone()
    told = coordinator.counters.message([], coordinator.stopwatch.seconds, [], {})
    coordinator.steps.write_to(told)
    assert sum(told.step_seconds_counts) == 6
    assert told.evaluations == 2
    assert min(told.step_seconds_sum, told.evaluation_seconds) > 0
    assert told.server_seconds.keys() == set(ACTIVITIES)
    assert all(told.server_seconds[activity] > 0 for activity in ("inspecting", "reducing", "updating"))


@pytest.mark.parametrize("seed", range(40))
def test_who_works_and_who_is_lost_never_changes_a_bit(
    coordinator: Coordinator, answer: Answer, run_alone: Callable[[], Coordinator], seed: int
) -> None:
    """Any number of workers that join, are lost or answer twice: the weights are those of one worker alone."""
    names, chance = itertools.count(), random.Random(seed)
    held: dict[str, list[Ticket]] = {}
    while not coordinator.over:
        busy = [name for name, tickets in held.items() if tickets]
        choice = chance.choice([*busy, "join"] if len(held) < 4 else busy)
        if choice == "join":
            choice = f"w{next(names)}"
            held[choice] = []
            coordinator.add_worker(choice)
        elif chance.random() < 0.2:
            coordinator.remove_worker(choice)
            del held[choice]
        else:
            ticket = held[choice].pop(0)
            result, again = (answer(coordinator, ticket, PLAN) for _ in range(2))
            assert coordinator.accept_result(choice, 2, result) is None
            assert coordinator.accept_result(choice, 2, again) in (Rejection.DUPLICATE, Rejection.LATE)
        for worker, tickets in coordinator.deal_tickets().items():
            held[worker].extend(tickets)
        coordinator.record_rounds()
    assert coordinator.shard.parameters.tobytes() == run_alone().shard.parameters.tobytes()
    assert coordinator.progress().samples == PLAN.rows * PLAN.epochs


def test_a_long_training_makes_few_buffers(make_coordinator: MakeCoordinator, answer: Answer) -> None:
    """However many steps: as many vectors as results and subtrees are open at a time, each free once at the end."""
    plan = Plan(rows=64, batch_size=8, micro_batches=8, epochs=30, seed=1, validation_rows=5)
    coordinator, chance = make_coordinator(plan, SIZE), random.Random(0)
    made = _count_made(coordinator.shard.buffers)
    coordinator.add_worker("a")
    coordinator.add_worker("b")
    while not coordinator.over:
        tickets = [(worker, ticket) for worker, dealt in coordinator.deal_tickets().items() for ticket in dealt]
        for worker, ticket in chance.sample(tickets, len(tickets)):
            result = answer(coordinator, ticket, plan)
            coordinator.accept_result(worker, 2, _received(coordinator, result))
            coordinator.accept_result(worker, 2, _received(coordinator, result))
            coordinator.accept_result(
                worker, 2, _received(coordinator, replace(result, sums=replace(result.sums, samples=99)))
            )
        coordinator.record_rounds()
    assert len(set(map(id, coordinator.shard.buffers._free))) == len(coordinator.shard.buffers._free) == made()
    assert made() <= plan.micro_batches


def _count_made(buffers: GradientBuffers) -> Callable[[], int]:
    """How many vectors are made from now on."""
    take, made = buffers.lend_buffer, []

    def count() -> np.ndarray:
        made.append(not buffers._free)
        return take()

    buffers.lend_buffer = count  # type: ignore[method-assign]
    return lambda: sum(made)


def _received(coordinator: Coordinator, result: Result) -> Result:
    """The result as it comes over a connection that does not share memory."""
    if result.gradient is None:
        return result
    buffer = coordinator.shard.buffers.lend_buffer()
    np.copyto(buffer, result.gradient)
    return replace(result, gradient=buffer)


def test_a_lost_worker_is_counted_only_while_there_is_work(
    coordinator: Coordinator, run_alone: Callable[[], Coordinator]
) -> None:
    """Workers that leave when all is done, or when there are too many, are not lost."""
    coordinator.add_worker("a")
    coordinator.remove_worker("a")
    coordinator.add_worker("b")
    coordinator.remove_worker("b", lost=False)
    done = run_alone()
    done.remove_worker("only")
    assert (coordinator.counters.workers_lost, done.counters.workers_lost) == (1, 0)
