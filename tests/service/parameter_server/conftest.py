"""What parts of a parameter server are tested with: trainings without a network, and an event loop."""

import asyncio
import itertools
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from service.parameter_server.policies import Sync
from service.parameter_server.training import Training
from workers.mathematics.optimizers import optimizer
from workers.plan import Plan
from workers.tickets import Result, Ticket, TicketKind

_SECONDS = 30

_Value = TypeVar("_Value")


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread() -> Iterator[None]:
    """Workers in threads of one process limit the BLAS of all; here they all find the same."""
    with threadpool_limits(1):
        yield


@pytest.fixture
def make_training() -> Callable[..., Training]:
    """Makes a training of attempt 2 from a plan, the size of the vector and its type; the clock ticks in seconds."""

    def make(plan: Plan, size: int, dtype: str = "float64") -> Training:
        clock = itertools.count()
        return Training(
            plan,
            Sync(),
            optimizer("sgd", 0.5),
            np.zeros(size, dtype),
            attempt=2,
            learning_rate=0.5,
            labelled=True,
            clock=lambda: float(next(clock)),
        )

    return make


@pytest.fixture
def answer() -> Callable[[Training, Ticket, Plan], Result]:
    """A result that depends on the ticket alone, as a worker's does."""
    return _answer


def _answer(training: Training, ticket: Ticket, plan: Plan) -> Result:
    if ticket.kind == TicketKind.EVALUATION:
        rows = plan.evaluation(ticket.micro_batch)
        return Result(ticket, training.version, 2.5, rows.stop - rows.start, 3)
    generator = np.random.default_rng([ticket.step, ticket.micro_batch])
    size = training.parameters.size
    # Of very different sizes, so that every order of additions rounds differently.
    gradient = (generator.normal(size=size) * 10.0 ** generator.integers(-5, 5, size)).astype(training.parameters.dtype)
    samples = plan.samples(ticket.step, ticket.micro_batch)
    return Result(ticket, training.version, float(generator.normal()), samples, 1, gradient)


class Loop:
    """An event loop on a thread of its own, so that tests may wait as they like."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop")
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, _Value]) -> _Value:
        """What a coroutine gives that runs on the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_SECONDS)

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Starts a coroutine on the loop."""
        asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Meanwhile the loop does nothing."""
        begun, go_on = threading.Event(), threading.Event()
        self._loop.call_soon_threadsafe(lambda: (begun.set(), go_on.wait()))
        begun.wait()
        yield
        go_on.set()

    def close(self) -> None:
        """Nothing may be left to do."""
        left = self.run(self._rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        assert not left

    async def _rest(self) -> list[asyncio.Task[Any]]:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=_SECONDS)
            return list(pending)
        return []


@pytest.fixture
def loop() -> Iterator[Loop]:
    """An event loop that runs."""
    loop = Loop()
    yield loop
    loop.close()
