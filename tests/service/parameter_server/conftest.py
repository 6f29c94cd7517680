"""What parts of a parameter server are tested with: trainings without a network, and an event loop."""

import asyncio
import hashlib
import itertools
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from nablad.jobspec import complete, parse
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.image import Snapshot, make_image
from service.parameter_server.coordinator import Coordinator
from service.parameter_server.progress.advice import Advice, advice
from service.parameter_server.progress.stopping import StoppingRules, stopping_rules
from service.parameter_server.scheduling.policies import SchedulingPolicy, SyncPolicy, policy_of
from service.parameter_server.shard.shard import Shard
from service.parameter_server.start import first_snapshot, place_in_shared_memory
from workers import from_spec
from workers.computation import Computation
from workers.mathematics.optimizers import Optimizer, optimizer
from workers.mathematics.parameters import ParameterLayout
from workers.mathematics.sums import SampleSums
from workers.plan import Plan
from workers.transport.tickets import Result, Ticket, TicketKind

REMEDY = "give a training.learning_rate below 0.5"
_SGD = optimizer("sgd", 0.5)
_SECONDS = 30
_JOB_FILE = """
name: small
data: {train: train, validation: validation, scaling: standard}
model: {layers: [6, 5, 3], activation: sigmoid, output_activation: sigmoid, dtype: float64}
cost: {function: log_loss}
training: {epochs: 2, batch_size: 16, learning_rate: 0.5, seed: 3}
"""

_Value = TypeVar("_Value")


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread() -> Iterator[None]:
    """Workers in threads of one process limit the BLAS of all; here they all find the same."""
    with threadpool_limits(1):
        yield


@pytest.fixture
def make_job(assignment: Callable[..., ps_pb.Assignment]) -> Callable[..., ps_pb.Assignment]:
    """A small job on so many rows; other keywords are those of its distribution."""

    def make(rows: int = 50, **distribution: int | str) -> ps_pb.Assignment:
        given = {"micro_batches": 4} | distribution
        spec, violations = parse(f"{_JOB_FILE}distribution: {given}")
        assert not violations
        return assignment(complete(spec, None), rows)

    return make


@pytest.fixture
def make_coordinator() -> Callable[..., Coordinator]:
    """Makes the coordinator of attempt 2 from a plan, the size of the vector and its type; the clock ticks in seconds.

    It may begin with another state than nothing; other keywords are those of its stopping rules.
    """

    def make(
        plan: Plan,
        size: int,
        dtype: str = "float64",
        state: ps_pb.TrainingState | None = None,
        layer_starts: Sequence[int] = (0,),
        update_rule: Optimizer = _SGD,
        policy: SchedulingPolicy | None = None,
        **rules: Any,
    ) -> Coordinator:
        policy = policy or SyncPolicy()
        clock, start = itertools.count(), Snapshot(state or ps_pb.TrainingState(), np.zeros(size, dtype))
        placed = place_in_shared_memory(start, spec_pb.TRANSPORT_INLINE, policy.weight_buffers)
        stopping = StoppingRules(plan.epochs, **rules)
        return Coordinator(
            plan,
            policy,
            Shard(update_rule, start, layer_starts, keep_best=stopping.keep_best, versions=placed.versions),
            update_rule.learning_rate,
            start.state,
            stopping,
            attempt=2,
            labelled=True,
            advice=Advice(REMEDY),
            clock=lambda: float(next(clock)),
        )

    return make


@pytest.fixture
def answer() -> Callable[[Coordinator, Ticket, Plan], Result]:
    """A result that depends on the ticket alone, as a worker's does."""
    return _answer


def _answer(coordinator: Coordinator, ticket: Ticket, plan: Plan) -> Result:
    if ticket.kind == TicketKind.EVALUATION:
        rows = plan.evaluation(ticket.micro_batch)
        return Result(ticket, coordinator.version, SampleSums(2.5, rows.stop - rows.start, 3))
    generator = np.random.default_rng([ticket.step, ticket.micro_batch])
    weights = coordinator.shard.parameters
    # Of very different sizes, so that every order of additions rounds differently.
    gradient = (generator.normal(size=weights.size) * 10.0 ** generator.integers(-5, 5, weights.size)).astype(
        weights.dtype
    )
    samples = plan.samples(ticket.step, ticket.micro_batch)
    return Result(ticket, coordinator.version, SampleSums(float(generator.normal()), samples, 1), gradient)


class Run:
    """An attempt in this thread: its training, and one worker that computes for it. The clock ticks in seconds.

    Attributes:
        coordinator: Its coordinator.
        told: What happened until now, without what depends on the time and on who is there.
    """

    def __init__(self, job: ps_pb.Assignment, *, rejected: bool = False) -> None:
        """`rejected`: its first results are not taken, until it fails."""
        clock = itertools.count()
        spec = job.spec
        policy = policy_of(spec)
        placed = place_in_shared_memory(first_snapshot(job), spec_pb.TRANSPORT_INLINE, policy.weight_buffers)
        start = placed.snapshot
        optimizer, rules = from_spec.update_rule(spec), stopping_rules(job)
        layer_starts = ParameterLayout(tuple(spec.model.layers), spec.model.bias).starts
        self.coordinator = Coordinator(
            from_spec.plan(job),
            policy,
            Shard(optimizer, start, layer_starts, keep_best=rules.keep_best, versions=placed.versions),
            optimizer.learning_rate,
            start.state,
            rules,
            attempt=job.attempt,
            labelled=job.train.dataset.classes > 0,
            advice=advice(job),
            clock=lambda: float(next(clock)),
        )
        self.told: list[ps_pb.TrainingEvent] = []
        self._attempt = job.attempt
        self._computation = Computation(job)
        self._tell()
        self.coordinator.add_worker("w")
        while rejected and not self.coordinator.over:
            self._make_rejected()

    def make_round(self) -> None:
        """Makes a step, or an evaluation."""
        coordinator = self.coordinator
        for ticket in coordinator.deal_tickets()["w"]:
            weights = coordinator.shard.parameters
            result = self._computation.answer(ticket, weights, coordinator.version, np.empty_like(weights))
            assert coordinator.accept_result("w", self._attempt, result) is None
        coordinator.record_rounds()
        self._tell()

    def finish(self) -> "Run":
        """Makes all rounds that are left."""
        while not self.coordinator.over:
            self.make_round()
        return self

    def image(self) -> bytes:
        """All that it takes to go on, without what depends on the time."""
        snapshot = self.coordinator.snapshot()
        snapshot.state.seconds = snapshot.state.epoch.seconds = 0
        return bytes(make_image(snapshot, {}))

    def epochs(self) -> list[ps_pb.EpochEnd]:
        """The epochs that ended."""
        return [event.epoch_end for event in self.told if event.HasField("epoch_end")]

    def _make_rejected(self) -> None:
        coordinator = self.coordinator
        for ticket in coordinator.deal_tickets()["w"]:
            weights = coordinator.shard.parameters
            result = self._computation.answer(ticket, weights, coordinator.version, np.empty_like(weights))
            assert coordinator.accept_result("w", self._attempt, result) is not None

    def _tell(self) -> None:
        for event in self.coordinator.pop_events():
            if event.HasField("step"):
                event.step.attempt = 0
            elif event.HasField("epoch_end"):
                event.epoch_end.progress.samples_per_second = 0
                event.epoch_end.progress.workers_alive = 0
            self.told.append(event)


@pytest.fixture
def begin() -> Callable[[ps_pb.Assignment], Run]:
    """Begins an attempt in this thread."""
    return Run


@pytest.fixture
def resume(tmp_path: Path) -> Callable[..., ps_pb.Assignment]:
    """The next attempt of a job, which begins where a training stands; by way of a file."""

    def make(job: ps_pb.Assignment, snapshot: Snapshot) -> ps_pb.Assignment:
        path, image = tmp_path / "7-1.safetensors", make_image(snapshot, {"job_id": job.job_id})
        path.write_bytes(image)
        following = ps_pb.Assignment()
        following.CopyFrom(job)
        following.attempt += 1
        following.start.path, following.start.sha256 = str(path), hashlib.sha256(image).hexdigest()
        return following

    return make


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
