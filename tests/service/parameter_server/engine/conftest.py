"""An engine at work on a small training, and workers at the other ends of its connections."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1.metrics_pb2 import Sums
from service.parameter_server import engine as engine_module
from service.parameter_server.coordinator import Coordinator
from service.parameter_server.engine import Engine
from service.parameter_server.scheduling.policies import SchedulingPolicy
from service.parameter_server.transport.members import Member
from service.parameter_server.transport.worker_connection import WorkerConnection
from workers.plan import Plan
from workers.transport.server_connection import ServerConnection
from workers.transport.tickets import Rejection, Result, Ticket

SIZE = 6
PLAN = Plan(rows=10, batch_size=4, micro_batches=3, epochs=2, seed=1, validation_rows=5)
PATIENCE_SECONDS = 60.0
_BESIDE_THE_STORY = ("step", "arithmetic", "first_weights_sha256", "step_core", "core_changed")

Answer = Callable[[Coordinator, Ticket, Plan], Result]


class CountingSelector:
    """A selector that counts how often it was asked."""

    def __init__(self, selector: Any) -> None:
        self.polls = 0
        self._selector = selector

    def select(self, timeout: float) -> Any:
        self.polls += 1
        return self._selector.select(timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._selector, name)


class Bench:
    """An engine at work on a small training, and the workers that were put to it.

    Attributes:
        training: Not to be touched while the engine has something to do.
        engine: The engine.
        news: How often it said that there are news.
        selector: What it waits with.
        seconds: The time, which stands still but for the test.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        loop: Any,
        answer: Answer,
        patch: pytest.MonkeyPatch,
        checkpoints: spec_pb.CheckpointsSpec,
    ) -> None:
        self.coordinator = coordinator
        self.news = 0
        self.seconds = 0.0
        patch.setattr(engine_module, "time", SimpleNamespace(monotonic=lambda: self.seconds))
        self._loop, self._answer = loop, answer
        self._peers: list[Peer] = []
        self.engine: Engine = self.run(self._start(checkpoints))
        self.selector = CountingSelector(self.engine._selector)
        self.engine._selector = self.selector
        self.call(lambda: None)  # it waits for something on the other one still

    async def _start(self, checkpoints: spec_pb.CheckpointsSpec) -> Engine:
        arithmetic = jobs_pb.Arithmetic(cpu="abacus")
        return Engine(self.coordinator, PATIENCE_SECONDS, checkpoints, {"job_id": "j"}, arithmetic, self._count_news)

    def _count_news(self) -> None:
        self.news += 1

    def told(self) -> list[ps_pb.TrainingEvent]:
        """What happened until now."""
        return list(self.call(lambda: self.engine.report(0)).events)

    def state(self) -> ps_pb.FollowResponse:
        """Where the training stands, with statistics."""
        return self.call(lambda: self.engine.report(0, with_statistics=True))

    def story(self) -> list[str]:
        """Names of the events until now, without history, digests, arithmetic and step cores."""
        names = [str(event.WhichOneof("what")) for event in self.told()]
        return [name for name in names if name not in _BESIDE_THE_STORY]

    def run(self, coroutine: Any) -> Any:
        """What a coroutine gives on the event loop."""
        return self._loop.run(coroutine)

    def start(self, coroutine: Any) -> None:
        """Starts a coroutine on the event loop."""
        self._loop.start(coroutine)

    def call(self, function: Callable[[], Any]) -> Any:
        """What a function gives on the engine's thread."""
        return self.run(self.engine.call(function))

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Meanwhile the engine is busy with a call."""
        begun, go_on = threading.Event(), threading.Event()
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(self.call, lambda: (begun.set(), go_on.wait()))
            begun.wait()
            yield
            go_on.set()
            call.result()

    def turn(self) -> None:
        """The engine comes round, and deals with what there is."""
        polls = self.selector.polls
        while self.selector.polls < polls + 2:
            self.call(lambda: None)

    def new_peer(self, name: str, *, shared: bool = True) -> "Peer":
        """A worker that the engine does not know yet."""
        self._peers.append(Peer(name, self.coordinator, self._answer, shared=shared))
        return self._peers[-1]

    def peer(self, name: str, *, shared: bool = True) -> "Peer":
        """A worker that is there from now on."""
        peer = self.new_peer(name, shared=shared)
        self.run(self.engine.add_worker(peer.member))
        return peer

    def remove(self, peer: "Peer") -> bool:
        """Whether it is told as lost."""
        told = len(self.told())
        self.run(self.engine.remove_worker(peer.member))
        return any(event.worker_lost for event in self.told()[told:])

    def gone(self, peer: "Peer") -> str:
        """Waits until the engine gives the worker up; gives the reason."""
        self.run(peer.member.gone.wait())
        return peer.member.reason

    def close(self) -> None:
        """Ends the engine, and then the workers."""
        self.run(self.engine.close())
        for peer in self._peers:
            peer.connection.__exit__()


class Peer:
    """A worker: its member, and its end of the connection.

    Attributes:
        tickets: That it was told, and has not answered.
        rejections: Of its results so far.
    """

    def __init__(self, name: str, coordinator: Coordinator, answer: Answer, *, shared: bool = True) -> None:
        self.tickets: list[Ticket] = []
        self.rejections: list[Rejection | None] = []
        here, self.socket = socket.socketpair()
        memory, size = None, coordinator.shard.parameters.size
        if shared:
            memory = np.zeros(size)
        connection = WorkerConnection(here, coordinator.shard.weights.versions, coordinator.shard.buffers, memory)
        self.member = Member(name, connection, f"{name} joined")
        gradient = np.zeros(size) if memory is None else memory
        self.connection = ServerConnection(self.socket, [np.zeros(size)], gradient, None if shared else [0])
        self._coordinator, self._answer = coordinator, answer

    def listen(self) -> bool:
        """Waits for an order; whether there was one."""
        order = self.connection.next_order()
        if order is None:
            return False
        self.tickets = [*order.tickets] or self.tickets
        self.rejections += order.rejections
        return True

    def answer(
        self,
        seconds: tuple[float, ...] = (1, 2, 3, 4),
        attempt: int = 2,
        usage: tuple[float, float] = (0.5, 4096),
    ) -> None:
        """Answers its next ticket."""
        result = self._answer(self._coordinator, self.tickets.pop(0), PLAN)
        self.connection.start_gradient()
        if result.gradient is not None:
            self.connection.gradient[:] = result.gradient
        self.connection.send_result(result, attempt, [*seconds, *usage])

    def finish(self) -> None:
        """Works until there is no more to do."""
        while self.tickets or self.listen():
            self.answer()
            if self.tickets:
                self.listen()


@pytest.fixture
def make_bench(
    loop: Any, make_coordinator: Callable[..., Coordinator], answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Bench]:
    """Starts an engine without workers on a training of so many weights; it must be closed.

    The training may have ended before it begins. Other keywords say when checkpoints are due.
    """

    def make(
        size: int = SIZE, *, ended: bool = False, policy: SchedulingPolicy | None = None, **checkpoints: Any
    ) -> Bench:
        state = ps_pb.TrainingState(
            step=PLAN.steps,
            evaluated=True,
            epoch=ps_pb.EpochSums(epoch=1, sums=Sums(samples=10)),
            validation=Sums(samples=5),
        )
        coordinator = make_coordinator(PLAN, size, state=state if ended else None, policy=policy)
        return Bench(coordinator, loop, answer, monkeypatch, spec_pb.CheckpointsSpec(**checkpoints))

    return make


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Iterator[Bench]:
    """An engine without workers."""
    bench = make_bench()
    yield bench
    bench.close()


@pytest.fixture
def expected(make_coordinator: Callable[..., Coordinator], answer: Answer) -> bytes:
    """The weights that one worker ends with, without an engine."""
    coordinator = make_coordinator(PLAN, SIZE)
    coordinator.add_worker("only")
    while not coordinator.over:
        for ticket in coordinator.deal_tickets()["only"]:
            coordinator.accept_result("only", 2, answer(coordinator, ticket, PLAN))
            coordinator.record_rounds()
    return coordinator.shard.parameters.tobytes()
