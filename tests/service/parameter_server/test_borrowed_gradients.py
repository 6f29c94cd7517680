"""Gradients that lie in their workers' own memory: read where they are, and never after they may have changed."""

import random
from collections.abc import Callable

import numpy as np
import pytest

from service.parameter_server.coordinator import Coordinator
from workers.plan import Plan
from workers.transport.tickets import Result, Ticket

MakeCoordinator = Callable[..., Coordinator]
Answer = Callable[..., Result]

SIZE = 6
PLAN = Plan(rows=40, batch_size=8, micro_batches=3, epochs=2, seed=1, validation_rows=5)


class _Worker:
    """Has one piece of memory for all its gradients, as a worker on the same host has."""

    def __init__(self, name: str, coordinator: Coordinator, answer: Answer, plan: Plan) -> None:
        self.name = name
        self.tickets: list[Ticket] = []
        self.memory = np.empty(SIZE)
        self._lent = self.memory.view()
        self._lent.flags.writeable = False
        self._coordinator, self._answer, self._plan = coordinator, answer, plan

    def scribble(self) -> None:
        """Writes what would be noticed: an order was given out, so the memory is its own again."""
        self.memory.fill(1e300)

    def report(self) -> None:
        """Answers its next ticket; what it has written lies in its memory until it is told another one."""
        result = self._answer(self._coordinator, self.tickets.pop(0), self._plan)
        if result.gradient is not None:
            self.memory[:] = result.gradient
            result.gradient = self._lent
        assert self._coordinator.accept_result(self.name, 2, result) is None
        if self.tickets:  # the answer to this result sends it on to the next
            self.scribble()


class _Workers:
    """Workers that write over their memory as soon as they may, whatever becomes of what they wrote before."""

    def __init__(self, coordinator: Coordinator, answer: Answer, plan: Plan) -> None:
        self.there: dict[str, _Worker] = {}
        self._number = 0
        self._coordinator, self._answer, self._plan = coordinator, answer, plan

    def join(self) -> _Worker:
        self._number += 1
        worker = _Worker(f"w{self._number}", self._coordinator, self._answer, self._plan)
        self._coordinator.add_worker(worker.name)
        self.there[worker.name] = worker
        return worker

    def lose(self, worker: _Worker) -> None:
        """Its memory is worth nothing any more."""
        del self.there[worker.name]
        self._coordinator.remove_worker(worker.name)
        worker.scribble()

    def deal(self) -> None:
        for name, tickets in self._coordinator.deal_tickets().items():
            self.there[name].tickets += tickets
            self.there[name].scribble()
        self._coordinator.record_rounds()

    def finish(self) -> bytes:
        """All that are there work until there is no more to do; gives the weights."""
        while not self._coordinator.over:
            self.deal()
            next(worker for worker in self.there.values() if worker.tickets).report()
            self._coordinator.record_rounds()
        return self._coordinator.shard.parameters.tobytes()


@pytest.fixture
def expected(make_coordinator: MakeCoordinator, answer: Answer) -> Callable[[Plan], bytes]:
    """The weights that one worker ends with whose gradients are taken over."""

    def run(plan: Plan) -> bytes:
        coordinator = make_coordinator(plan, SIZE)
        coordinator.add_worker("only")
        while not coordinator.over:
            for ticket in coordinator.deal_tickets()["only"]:
                coordinator.accept_result("only", 2, answer(coordinator, ticket, plan))
                coordinator.record_rounds()
        return coordinator.shard.parameters.tobytes()

    return run


@pytest.fixture
def workers(make_coordinator: MakeCoordinator, answer: Answer) -> Callable[[Plan], _Workers]:
    """Nobody yet, for a new training by a plan."""
    return lambda plan: _Workers(make_coordinator(plan, SIZE), answer, plan)


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 5, 7, 8])
@pytest.mark.parametrize("seed", range(12))
def test_nobody_ever_reads_what_a_worker_may_have_overwritten(
    workers: Callable[[Plan], _Workers], expected: Callable[[Plan], bytes], parts: int, seed: int
) -> None:
    """Workers join, are lost and get each other's tickets in any order: the weights are those of owned gradients."""
    plan = Plan(rows=40, batch_size=8, micro_batches=parts, epochs=2, seed=1, validation_rows=5)
    crowd, chance = workers(plan), random.Random(seed)
    crowd.join()
    coordinator = crowd._coordinator
    while not coordinator.over:
        crowd.deal()
        busy = [worker for worker in crowd.there.values() if worker.tickets]
        luck = chance.random()
        if luck < 0.15 and len(crowd.there) < 5:
            crowd.join()
        elif luck < 0.35 and len(crowd.there) > 1:
            crowd.lose(chance.choice([*crowd.there.values()]))
        elif busy:
            chance.choice(busy).report()
    coordinator.record_rounds()
    assert coordinator.shard.parameters.tobytes() == expected(plan)


def test_a_gradient_outlives_its_worker(workers: Callable[[Plan], _Workers], expected: Callable[[Plan], bytes]) -> None:
    """A worker is lost right after its report: what it reported still counts, as it was."""
    crowd = workers(PLAN)
    *_, last = (crowd.join() for _ in range(3))
    crowd.deal()
    last.report()  # part 2 has no neighbour, and stays in the memory of its worker
    crowd.lose(last)
    assert crowd.finish() == expected(PLAN)


def test_a_gradient_outlives_its_workers_next_ticket_of_the_same_step(
    workers: Callable[[Plan], _Workers], expected: Callable[[Plan], bytes]
) -> None:
    """A worker that has answered gets the ticket of one that was lost, and computes it in memory that is borrowed."""
    crowd = workers(PLAN)
    one, two, three = (crowd.join() for _ in range(3))
    crowd.deal()
    three.report()
    crowd.lose(two)
    crowd.deal()
    assert [ticket.micro_batch for ticket in three.tickets] == [1]
    three.report()
    one.report()
    assert crowd.finish() == expected(PLAN)


def test_what_was_read_already_is_not_copied_for_the_next_step(workers: Callable[[Plan], _Workers]) -> None:
    """Two workers, two parts: no vector is ever made beside their own."""
    crowd = workers(Plan(rows=40, batch_size=8, micro_batches=2, epochs=2, seed=1, validation_rows=5))
    crowd.join()
    crowd.join()
    coordinator = crowd._coordinator
    while not coordinator.over:
        crowd.deal()
        for worker in crowd.there.values():
            if worker.tickets:
                worker.report()
    assert coordinator.shard.buffers._free == []
