"""What a parameter server is tested with: trainings without a network, lines without workers, workers that tests lead."""

import asyncio
import itertools
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from typing import Any, TypeVar

import grpc
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from nablad.spec import complete, parse
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from service.parameter_server.lines import Line
from service.parameter_server.policies import Sync
from service.parameter_server.process import RunningParameterServer, start_parameter_server
from service.parameter_server.reduction import Buffers
from service.parameter_server.training import Training
from workers import build
from workers.computation import Computation
from workers.frames import ACTIVITIES, ORDER_BYTES, Order, order_rest_bytes
from workers.line import open_line
from workers.mathematics.optimizers import optimizer
from workers.plan import Plan
from workers.tickets import Result, Ticket, TicketKind
from workers.worker import SECRET_KEY, host_fingerprint, work

_SECRET = "secret"
_METADATA = ((SECRET_KEY, _SECRET),)
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


# -- trainings ---------------------------------------------------------------------------------------------------------


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


# -- lines -------------------------------------------------------------------------------------------------------------


class Ends:
    """A line, and the socket of the worker at its other end.

    Attributes:
        line: The parameter server's end.
        worker: Not blocking.
        weights: Shape (size,), float64.
        memory: Where the worker writes its gradient; None if it sends it.
        buffers: What gradients are received into.
    """

    def __init__(self, size: int, *, shared: bool = False, socket_bytes: int | None = None) -> None:
        here, self.worker = socket.socketpair()
        for end in (here, self.worker) if socket_bytes else ():
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, socket_bytes)
        self.worker.setblocking(False)
        self.weights = np.arange(size, dtype=np.float64)
        self.memory = np.zeros(size) if shared else None
        self.buffers = Buffers(size, np.float64)
        self.line = Line(here, self.weights, self.buffers, self.memory)

    def read(self) -> bytes:
        """What has come to the worker."""
        data = b""
        try:
            while more := self.worker.recv(1 << 20):
                data += more
        except BlockingIOError:
            pass
        return data

    def orders(self) -> list[tuple[Order, bytes]]:
        """The orders that have come to the worker, with the weights that followed."""
        data, orders = self.read(), []
        while data:
            rest = ORDER_BYTES + order_rest_bytes(data[:ORDER_BYTES])
            order = Order.decode(data[:ORDER_BYTES], data[ORDER_BYTES:rest])
            end = rest + order.weights_bytes
            orders.append((order, data[rest:end]))
            data = data[end:]
        return orders


@pytest.fixture
def ends() -> Iterator[Callable[..., Ends]]:
    """Opens lines; arguments as for `Ends`."""
    opened: list[Ends] = []

    def open_ends(size: int = 1000, **options: Any) -> Ends:
        opened.append(Ends(size, **options))
        return opened[-1]

    yield open_ends
    for each in opened:
        each.line.close()
        each.worker.close()


# -- parameter servers -------------------------------------------------------------------------------------------------


class Loop:
    """An event loop on a thread of its own, so that tests may wait as they like."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop")
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, _Value]) -> _Value:
        """What a coroutine gives that runs on the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_SECONDS)

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


class Hand:
    """A worker that does what a test says.

    Attributes:
        name: That the parameter server gave it.
        line: Its line.
        membership: Its call of Attend.
    """

    def __init__(self, stub: ps_grpc.ParameterServerServiceStub, job: ps_pb.Assignment) -> None:
        request = ps_pb.JoinRequest(host_fingerprint=host_fingerprint(), process_id=os.getpid())
        joined = stub.Join(request, metadata=_METADATA, timeout=_SECONDS)
        self.name = joined.worker_id
        self.computation = Computation(job)
        self.line = open_line(joined, self.computation.layout, self.computation.dtype)
        self.membership = stub.Attend(ps_pb.AttendRequest(worker_id=self.name), metadata=_METADATA)

    def order(self) -> Order:
        """Waits for an order."""
        order = self.line.next_order()
        assert order is not None, "the line was closed"
        return order

    def compute(self, ticket: Ticket, version: int) -> Result:
        """Computes the answer to a ticket as a worker does, which may send parts of it already."""
        self.line.begin()
        line = self.line
        return self.computation.answer(ticket, line.weights, version, line.gradient, line.layer_done)

    def send(self, result: Result, attempt: int = 1) -> None:
        """Sends a result."""
        self.line.send(result, attempt, [0.0] * len(ACTIVITIES))

    def answer(self, order: Order) -> None:
        """Answers the tickets of an order, each after the one before was acknowledged."""
        for number, ticket in enumerate(order.tickets):
            self.send(self.compute(ticket, order.version))
            if number + 1 < len(order.tickets):
                assert self.order().refusals == [None]

    def work(self) -> None:
        """Works until there is no more to do."""
        while order := self.line.next_order():
            self.answer(order)

    def end(self) -> tuple[grpc.StatusCode, str]:
        """Waits for the end of the membership: its code and its details."""
        return self.membership.code(), self.membership.details()

    def leave(self) -> None:
        """Breaks off."""
        self.membership.cancel()

    def close(self) -> None:
        """Leaves nothing behind."""
        self.leave()
        self.line.__exit__()


class Served:
    """A parameter server at work, and the ways to it.

    Attributes:
        job: What it trains.
        address: host:port.
        stub: For its calls.
    """

    def __init__(self, job: ps_pb.Assignment, running: RunningParameterServer, channel: grpc.Channel) -> None:
        self.job = job
        self.address = running.address
        self.stub = ps_grpc.ParameterServerServiceStub(channel)
        self._hands: list[Hand] = []

    def hand(self) -> Hand:
        """A worker that has joined and attends."""
        self._hands.append(Hand(self.stub, self.job))
        return self._hands[-1]

    def work(self) -> None:
        """Runs a real worker to its end."""
        work(self.address, _SECRET, threads=1, message_bytes=build.message_bytes(self.job))

    def weights(self) -> bytes:
        """The present weights."""
        call = self.stub.FetchWeights(ps_pb.FetchWeightsRequest(), metadata=_METADATA, timeout=_SECONDS)
        return b"".join(response.chunk for response in call)

    def follow(self, seen: int = 0) -> list[ps_pb.FollowResponse]:
        """What happens until the end."""
        call = self.stub.Follow(ps_pb.FollowRequest(seen=seen), metadata=_METADATA, timeout=_SECONDS)
        return [told for told in call if told.WhichOneof("happening")]

    def wait_for(self, happening: str, count: int = 1) -> ps_pb.FollowResponse:
        """What is told when something has happened so often."""
        call = self.stub.Follow(ps_pb.FollowRequest(), metadata=_METADATA, timeout=_SECONDS)
        told = (each for each in call if each.WhichOneof("happening") == happening)
        wanted = next(itertools.islice(told, count - 1, None))
        call.cancel()
        return wanted

    def close(self) -> None:
        """Leaves no worker behind."""
        for hand in self._hands:
            hand.close()


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
def serve(loop: Loop) -> Iterator[Callable[..., Served]]:
    """Starts a parameter server for a job; what it started is stopped at the end of the test."""
    with ExitStack() as started:

        def start(job: ps_pb.Assignment, **options: float) -> Served:
            running = loop.run(start_parameter_server(job, _SECRET, "127.0.0.1", **options))
            started.callback(lambda: loop.run(running.stop()))
            served = Served(job, running, started.enter_context(grpc.insecure_channel(running.address)))
            started.callback(served.close)
            return served

        yield start
