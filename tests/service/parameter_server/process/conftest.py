"""A parameter server at work in this process, without Ray, and workers that do what a test says."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
import pytest

from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from service.parameter_server.process import RunningParameterServer, start_parameter_server
from workers import from_spec
from workers.computation import Computation
from workers.mathematics.sums import SampleSums
from workers.native.library import native_abi
from workers.runtime.host import host_fingerprint
from workers.transport.frames import WORKER_STATISTICS, Order
from workers.transport.handshake import connect_to_server
from workers.transport.session import SECRET_KEY
from workers.transport.tickets import Result, Ticket, TicketKind
from workers.worker import work

_SECRET = "secret"  # noqa: S105 (of jobs that only exist here)
_METADATA = ((SECRET_KEY, _SECRET),)
_SECONDS = 30
_MANY_STEPS = 10**6
_BESIDE_THE_STORY = ("step", "arithmetic", "first_weights_sha256", "step_core", "core_changed")

_reading = threading.Lock()


def _computation(assignment: ps_pb.Assignment) -> Computation:
    with _reading:
        return Computation(assignment)


@pytest.fixture(autouse=True)
def readers_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers in threads open their files one by one: CPython 3.11 does not parse literals in two threads at a time."""
    monkeypatch.setattr("workers.worker.Computation", _computation)


class Hand:
    """A worker that does what a test says.

    Attributes:
        name: That the parameter server gave it.
        connection: Its connection.
        membership: Its call of Attend.
    """

    def __init__(self, stub: ps_grpc.ParameterServerServiceStub, job: ps_pb.Assignment, *, native: bool) -> None:
        abi = native_abi() if native else 0
        request = ps_pb.JoinRequest(host_fingerprint=host_fingerprint(), process_id=os.getpid(), native_abi=abi)
        joined = stub.Join(request, metadata=_METADATA, timeout=_SECONDS)
        self.name = joined.worker_id
        self.computation = _computation(job)
        self.connection = connect_to_server(joined, self.computation.layout, self.computation.dtype)
        self.membership = stub.Attend(ps_pb.AttendRequest(worker_id=self.name), metadata=_METADATA)

    def order(self) -> Order:
        """Waits for an order."""
        order = self.connection.next_order()
        assert order is not None, "the connection was closed"
        return order

    def compute(self, ticket: Ticket, version: int) -> Result:
        """Computes the answer to a ticket as a worker does, which may send parts of it already."""
        self.connection.start_gradient()
        connection = self.connection
        return self.computation.answer(ticket, connection.weights, version, connection.gradient, connection.layer_done)

    def send(self, result: Result, attempt: int = 1) -> None:
        """Sends a result."""
        self.connection.send_result(result, attempt, [0.0] * len(WORKER_STATISTICS))

    def answer(self, order: Order) -> None:
        """Answers the tickets of an order, each after the one before was acknowledged."""
        for number, ticket in enumerate(order.tickets):
            self.send(self.compute(ticket, order.version))
            if number + 1 < len(order.tickets):
                assert self.order().rejections == [None]

    def work(self) -> None:
        """Works until there is no more to do."""
        while order := self.connection.next_order():
            if order.run:
                self.make_steps(order, _MANY_STEPS)
            else:
                self.answer(order)

    def report(self, order: Order, step: int, sums: Mapping[int, SampleSums] = MappingProxyType({})) -> None:
        """Reports results of one step of a run; those of some slots have other sums than the right ones."""
        end = self.connection.run_end
        assert end is not None
        for slot, ticket in enumerate(order.tickets):
            of_step = ticket._replace(step=step)
            result = self.computation.answer(of_step, self.connection.weights, step, end.gradients[slot])
            end.report_result(slot, order.run, step, sums.get(slot, result.sums), 0.01)

    def make_steps(self, order: Order, until: int) -> bool:
        """Makes the steps of a run before another one; returns whether the run has come there."""
        end = self.connection.run_end
        assert end is not None
        for step in range(order.tickets[0].step, until):
            self.report(order, step)
            if not end.wait_for_version(order.run, step + 1, _SECONDS):
                return False
        return True

    def work_until(self, step: int) -> Order:
        """Works until there is a gradient to compute for a step; returns the order that it belongs to."""
        while True:
            order = self.order()
            if order.run:
                if self.make_steps(order, step):
                    return order
            elif any(ticket.step >= step and ticket.kind == TicketKind.GRADIENT for ticket in order.tickets):
                return order
            else:
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
        self.connection.__exit__()


class Served:
    """A parameter server at work, and the ways to it.

    Attributes:
        job: What it trains.
        address: host:port.
        stub: For its calls.
    """

    def __init__(
        self, job: ps_pb.Assignment, running: RunningParameterServer, channel: grpc.Channel, loop: Any
    ) -> None:
        self.job = job
        self._running: RunningParameterServer | None = running
        self._loop = loop
        self.address = running.address
        self.stub = ps_grpc.ParameterServerServiceStub(channel)
        self._hands: list[Hand] = []

    def hand(self, *, native: bool = False) -> Hand:
        """A worker that has joined and attends; a native one can make steps without messages."""
        self._hands.append(Hand(self.stub, self.job, native=native))
        return self._hands[-1]

    def work(self) -> None:
        """Runs a real worker to its end."""
        work(self.address, _SECRET, threads=1, message_bytes=from_spec.message_bytes(self.job))

    def weights(self) -> bytes:
        """The present weights."""
        call = self.stub.FetchWeights(ps_pb.FetchWeightsRequest(), metadata=_METADATA, timeout=_SECONDS)
        return b"".join(response.chunk for response in call)

    def tell(self, seen: int) -> ps_pb.FollowResponse:
        """What a follower is told that has seen so many events."""
        return self.stub.Follow(ps_pb.FollowRequest(seen=seen, statistics=True), metadata=_METADATA, timeout=_SECONDS)

    def follow(self, seen: int = 0) -> list[ps_pb.TrainingEvent]:
        """What happens until the end."""
        events: list[ps_pb.TrainingEvent] = []
        while not (events and events[-1].WhichOneof("what") in {"finished", "failed", "diverged"}):
            events += self.tell(seen + len(events)).events
        return events

    def story(self) -> list[str]:
        """What happens until the end, by its name; without history, digests, arithmetic and step cores."""
        names = [str(event.WhichOneof("what")) for event in self.follow()]
        return [name for name in names if name not in _BESIDE_THE_STORY]

    def wait_for(self, what: str, count: int = 1) -> tuple[ps_pb.TrainingEvent, ps_pb.FollowResponse]:
        """What is told when something has happened so often, and with what."""
        seen = 0
        while True:
            told = self.tell(seen)
            seen += len(told.events)
            for event in told.events:
                count -= event.WhichOneof("what") == what
                if not count:
                    return event, told

    def state(self) -> ps_pb.FollowResponse:
        """Where the training stands."""
        return self.tell(2**64 - 1)

    def checkpoint(self, *, now: bool) -> tuple[ps_pb.TrainingState, bytes] | None:
        """Waits for a checkpoint; None if there is none any more."""
        call = self.stub.FetchCheckpoint(ps_pb.FetchCheckpointRequest(now=now), metadata=_METADATA, timeout=_SECONDS)
        messages = list(call)
        if not messages:
            return None
        return messages[0].state, b"".join(message.chunk for message in messages[1:])

    def set_workers(self, workers: int) -> None:
        """So many workers are wanted."""
        self.stub.SetWorkers(ps_pb.SetWorkersRequest(workers=workers), metadata=_METADATA, timeout=_SECONDS)

    def stop(self) -> None:
        """Stops the parameter server, if that was not done before."""
        if self._running:
            self._loop.run(self._running.stop())
            self._loop.run(self._running.wait())
            self._running = None

    def close(self) -> None:
        """Leaves no worker behind."""
        for hand in self._hands:
            hand.close()
        self._hands.clear()


@pytest.fixture
def make_hand() -> Iterator[Callable[[ps_grpc.ParameterServerServiceStub, ps_pb.Assignment], Hand]]:
    """Makes workers that can make steps without messages, for any parameter server."""
    with ExitStack() as made:

        def make(stub: ps_grpc.ParameterServerServiceStub, job: ps_pb.Assignment) -> Hand:
            hand = Hand(stub, job, native=True)
            made.callback(hand.close)
            return hand

        yield make


@pytest.fixture
def serve(loop: Any) -> Iterator[Callable[..., Served]]:
    """Starts a parameter server for a job; what it started is stopped at the end of the test."""
    with ExitStack() as started:

        def start(job: ps_pb.Assignment, **options: float) -> Served:
            running = loop.run(start_parameter_server(job, _SECRET, "127.0.0.1", **options))
            channel = started.enter_context(grpc.insecure_channel(running.address))
            served = Served(job, running, channel, loop)
            started.callback(served.stop)
            started.callback(served.close)
            return served

        yield start


@pytest.fixture
def resume(tmp_path: Path) -> Callable[[ps_pb.Assignment, bytes], ps_pb.Assignment]:
    """The next attempt of a job, which begins with a checkpoint."""

    def make(job: ps_pb.Assignment, image: bytes) -> ps_pb.Assignment:
        path = tmp_path / "checkpoint.safetensors"
        path.write_bytes(image)
        following = ps_pb.Assignment()
        following.CopyFrom(job)
        following.attempt += 1
        following.start.path, following.start.sha256 = str(path), hashlib.sha256(image).hexdigest()
        return following

    return make
