"""Policies in the state machine: which parts of a step are applied, which never, and what is recorded of it."""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.coordinator import Coordinator
from service.parameter_server.scheduling.policies import BackupPolicy, SchedulingPolicy, SyncPolicy
from workers.plan import Plan
from workers.transport.tickets import Rejection, Result, Ticket, TicketKind

MakeCoordinator = Callable[..., Coordinator]
Answer = Callable[[Coordinator, Ticket, Plan], Result]
MakeJob = Callable[..., ps_pb.Assignment]

SIZE = 6
PLAN = Plan(rows=21, batch_size=9, micro_batches=5, epochs=2, seed=1, validation_rows=5)


class Walk:
    """A training with workers that are fast and slow by chance.

    Attributes:
        coordinator: Its coordinator.
        applied: Micro-batches whose result was accepted, by step.
        rejections: Reasons of rejected results.
    """

    def __init__(self, coordinator: Coordinator, answer: Answer, plan: Plan, chance: random.Random) -> None:
        self.coordinator = coordinator
        self.applied: dict[int, list[int]] = {}
        self.rejections: list[Rejection] = []
        self._answer, self._plan, self._chance = answer, plan, chance
        self._names = itertools.count()
        # By worker: what it has to answer; the first is being computed, with the version that it was ordered for.
        self._tickets: dict[str, list[Result]] = {}

    def finish(self, most_workers: int = 4) -> "Walk":
        """Works to the end; workers come, are lost, and answer in any order."""
        coordinator = self.coordinator
        while not coordinator.over:
            at_work = [name for name, results in self._tickets.items() if results]
            choice = self._chance.choice([*at_work, "join"] if len(self._tickets) < most_workers else at_work)
            if choice == "join":
                choice = f"w{next(self._names)}"
                self._tickets[choice] = []
                coordinator.add_worker(choice)
            elif self._chance.random() < 0.05:
                coordinator.remove_worker(choice)
                del self._tickets[choice]
            else:
                self._report(choice)
            self._deal()
            coordinator.record_rounds()
        return self

    def _deal(self) -> None:
        for worker, tickets in self.coordinator.deal_tickets().items():
            # In place of what is left of an older order, as a worker does.
            self._tickets[worker] = [self._answer(self.coordinator, ticket, self._plan) for ticket in tickets]

    def _report(self, worker: str) -> None:
        result, *self._tickets[worker] = self._tickets[worker]
        held = self.coordinator.holds_tickets(worker)
        rejection = self.coordinator.accept_result(worker, 2, result)
        if rejection:
            assert not held or rejection != Rejection.LATE
            self.rejections.append(rejection)
            self._tickets[worker] = []  # it is told of no more, and waits for its next order
        elif result.ticket.kind == TicketKind.GRADIENT:
            self.applied.setdefault(result.ticket.step, []).append(result.ticket.micro_batch)


def _weights(walk: Walk, answer: Answer, plan: Plan) -> np.ndarray:
    """What the steps give with the micro-batches that were applied: the mean over their samples, in the fixed tree."""
    weights = np.zeros(SIZE)
    for step in range(plan.steps):
        parts = walk.applied[step]
        gradients = {part: answer(walk.coordinator, Ticket(step, 1, part), plan).gradient for part in parts}
        samples = sum(plan.samples(step, part) for part in parts)
        weights = weights - _tree(gradients, plan.parts(step)) * (0.5 / samples)
    return weights


def _tree(nodes: dict[int, Any], width: int) -> np.ndarray:
    if width == 1:
        result: np.ndarray = nodes[0]
        return result
    above: dict[int, np.ndarray] = {}
    for number in sorted(nodes):
        above[number // 2] = above[number // 2] + nodes[number] if number // 2 in above else nodes[number]
    return _tree(above, (width + 1) // 2)


@pytest.mark.parametrize("spares", [1, 2, 4, 7])
@pytest.mark.parametrize("seed", range(15))
def test_backup_applies_what_came_and_drops_the_rest(
    make_coordinator: MakeCoordinator, answer: Answer, spares: int, seed: int
) -> None:
    """Each step is the mean over the samples that came, and every micro-batch is either applied, once, or recorded."""
    walk = Walk(make_coordinator(PLAN, SIZE, policy=BackupPolicy(spares)), answer, PLAN, random.Random(seed)).finish()
    coordinator = walk.coordinator
    assert coordinator.shard.parameters.tobytes() == _weights(walk, answer, PLAN).tobytes()
    progress, points = coordinator.progress(), [told.step for told in coordinator.pop_events() if told.HasField("step")]
    for step, point in enumerate(points):
        parts, applied = PLAN.parts(step), walk.applied[step]
        assert len(applied) == max(1, parts - spares)
        assert sorted([*applied, *point.missing_micro_batches]) == list(range(parts))
    missing = [(step, part) for step, point in enumerate(points) for part in point.missing_micro_batches]
    assert progress.dropped_micro_batches == coordinator.counters.dropped_micro_batches == len(missing)
    assert progress.dropped_samples == sum(PLAN.samples(*each) for each in missing)
    assert progress.samples + progress.dropped_samples == PLAN.rows * PLAN.epochs
    assert set(walk.rejections) <= {Rejection.LATE}


@pytest.mark.parametrize("seed", range(10))
def test_without_missing_parts_backup_gives_the_bits_of_sync(
    make_coordinator: MakeCoordinator, answer: Answer, seed: int
) -> None:
    """With two buffers as with one."""
    sync, backup = (
        Walk(make_coordinator(PLAN, SIZE, policy=policy), answer, PLAN, random.Random(seed)).finish()
        for policy in (SyncPolicy(), BackupPolicy(0))
    )
    assert backup.coordinator.shard.parameters.tobytes() == sync.coordinator.shard.parameters.tobytes()
    assert backup.coordinator.progress() == sync.coordinator.progress()
    assert backup.coordinator.counters.dropped_micro_batches == 0


def test_evaluations_are_never_partial(make_coordinator: MakeCoordinator, answer: Answer) -> None:
    """However many parts of steps may be missing, the validation metrics are over all validation rows."""
    plan = Plan(rows=4, batch_size=4, micro_batches=4, epochs=1, seed=1, validation_rows=2500)
    coordinator = make_coordinator(plan, SIZE, policy=BackupPolicy(3))
    coordinator.add_worker("w")
    evaluated = 0
    while not coordinator.over:
        for ticket in coordinator.deal_tickets()["w"]:
            evaluated += ticket.kind == TicketKind.EVALUATION
            assert coordinator.accept_result("w", 2, answer(coordinator, ticket, plan)) is None
    assert (evaluated, coordinator.version) == (3, 1)


def test_a_dropped_result_is_late_however_good_it_is(make_coordinator: MakeCoordinator, answer: Answer) -> None:
    """It changes nothing; its worker is at work until then, and gets tickets again afterwards."""
    plan = Plan(rows=12, batch_size=6, micro_batches=3, epochs=1, seed=1)
    coordinator = make_coordinator(plan, SIZE, policy=BackupPolicy(1))
    for worker in ("a", "slow", "b"):
        coordinator.add_worker(worker)
    dealt = coordinator.deal_tickets()
    late = answer(coordinator, dealt["slow"][0], plan)
    for worker in ("a", "b"):
        assert coordinator.accept_result(worker, 2, answer(coordinator, dealt[worker][0], plan)) is None
    coordinator.record_rounds()
    before = coordinator.shard.parameters.tobytes()
    assert coordinator.deal_tickets().keys() == {"a", "b"}
    assert (coordinator.is_at_work("slow"), coordinator.holds_tickets("slow")) == (True, False)
    assert coordinator.accept_result("slow", 2, late) == Rejection.LATE
    assert coordinator.shard.parameters.tobytes() == before
    assert not coordinator.is_at_work("slow")
    coordinator.remove_worker("a")
    assert coordinator.deal_tickets().keys() == {"slow"}


def test_a_step_that_is_late_gets_its_spare_tickets(make_coordinator: MakeCoordinator, answer: Answer) -> None:
    """When it has taken three times as long as the first worker took for its tickets, and not before."""
    plan = Plan(rows=9, batch_size=9, micro_batches=3, epochs=1, seed=1)
    coordinator = make_coordinator(plan, SIZE, policy=BackupPolicy(1))
    for worker in ("a", "slow"):
        coordinator.add_worker(worker)
    dealt = coordinator.deal_tickets()
    assert coordinator.seconds_to_spares == float("inf")
    coordinator.accept_result("a", 2, answer(coordinator, dealt["a"][0], plan))
    assert 0 < coordinator.seconds_to_spares < float("inf")
    assert coordinator.deal_tickets() == {}
    while coordinator.seconds_to_spares > 0:
        coordinator.stopwatch.lap("waiting")
    assert coordinator.deal_tickets() == {"a": [Ticket(0, 1, 2)]}
    coordinator.accept_result("a", 2, answer(coordinator, Ticket(0, 1, 2), plan))
    assert coordinator.version == 1
    assert coordinator.seconds_to_spares == float("inf")


def test_what_is_dropped_is_part_of_a_checkpoint(
    make_job: MakeJob, begin: Callable[..., Any], resume: Callable[..., ps_pb.Assignment]
) -> None:
    """An attempt that goes on from it counts on; where the same parts come, it ends with the same bits."""
    job = make_job(policy="backup")
    whole = begin(job).finish()
    first = begin(job)
    for _ in range(3):
        first.make_round()
    rest = begin(resume(job, first.coordinator.snapshot())).finish()
    assert whole.coordinator.progress().dropped_micro_batches == 8
    assert rest.coordinator.progress() == whole.coordinator.progress()
    assert rest.image() == whole.image()


@dataclass(frozen=True)
class Damped(SyncPolicy):
    """Lets one step run ahead; a gradient counts the less, the older its weights are."""

    weight_buffers = 2
    allows_runs = False

    def may_open(self, step: int, version: int) -> bool:
        return step <= version + 1

    def accepts(self, result_version: int, version: int) -> bool:
        return version - 1 <= result_version <= version

    def weight(self, result_version: int, version: int) -> float:
        return 1 / (1 + version - result_version)


@pytest.mark.parametrize("borrowed", [True, False])
def test_a_policy_may_run_ahead_and_weigh_what_is_old(
    make_coordinator: MakeCoordinator, answer: Answer, borrowed: bool
) -> None:
    """The seam for stale policies: gradients of older weights are scaled, in nobody else's memory."""
    plan = Plan(rows=4, batch_size=2, micro_batches=1, epochs=1, seed=1)
    policy: SchedulingPolicy = Damped()
    coordinator = make_coordinator(plan, SIZE, policy=policy)
    coordinator.add_worker("w")
    tickets = coordinator.deal_tickets()["w"]
    assert [ticket.step for ticket in tickets] == [0, 1]
    results = [answer(coordinator, ticket, plan) for ticket in tickets]
    gradients = [result.gradient.copy() for result in results if result.gradient is not None]
    for result in results:
        assert result.gradient is not None
        result.gradient.flags.writeable = not borrowed
        assert coordinator.accept_result("w", 2, result) is None
    assert coordinator.over
    expected = -gradients[0] * (0.5 / 2)
    expected = expected - (gradients[1] * 0.5) * (0.5 / 2)
    assert coordinator.shard.parameters.tobytes() == expected.tobytes()
    assert not borrowed or results[1].gradient is not None
    if borrowed:
        assert np.array_equal(results[1].gradient, gradients[1])  # type: ignore[arg-type] # it is there


def test_a_policy_says_what_it_promises() -> None:
    """Exact or not, in a sentence of its own."""
    assert (SyncPolicy().exact, SyncPolicy().weight_buffers) == (True, 1)
    assert (BackupPolicy(2).exact, BackupPolicy(2).weight_buffers) == (False, 2)
    assert "all but at most 2 of its micro-batches" in BackupPolicy(2).promise
    assert SyncPolicy().promise != BackupPolicy(2).promise
