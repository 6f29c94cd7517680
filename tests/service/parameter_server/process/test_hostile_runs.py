"""Workers that do harm while steps are made without messages: they reach nothing but their own results."""

import fcntl
import mmap
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

from nablad.v1 import parameter_server_pb2 as ps_pb
from workers.mathematics.sums import SampleSums
from workers.native.library import missing_reason, native_abi
from workers.runtime.host import host_fingerprint
from workers.transport.frames import Order
from workers.transport.session import SECRET_KEY

MakeJob = Callable[..., ps_pb.Assignment]
Serve = Callable[..., Any]
PlainTraining = Callable[[ps_pb.Assignment], bytes]

pytestmark = pytest.mark.skipif(bool(missing_reason()), reason=missing_reason())

SECONDS = 30
WRONG = [SampleSums(np.nan, 4, 0), SampleSums(0.0, 3, 0), SampleSums(0.0, 4, 5), SampleSums(0.0, 2**64 - 1, 0)]


@pytest.fixture
def job(make_job: MakeJob) -> ps_pb.Assignment:
    """A job of 26 steps that are made without messages."""
    return make_job(202, step_core="native", transport="shared")


def _enter_run(served: Any) -> tuple[Any, Order]:
    """A worker in a run, which has all parts of the first step."""
    hand = served.hand(native=True)
    order = hand.order()
    assert order.run
    assert len(order.tickets) == 4
    return hand, order


@pytest.mark.parametrize("slot", [0, 3])
@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_wrong_result_ends_the_run_and_changes_nothing(
    serve: Serve, job: ps_pb.Assignment, plain_training: PlainTraining, wrong: SampleSums, slot: int
) -> None:
    """The step is made with messages, which would say what is wrong; the next ones are made without again."""
    served = serve(job)
    hand, order = _enter_run(served)
    before = served.weights()
    hand.report(order, 0, {slot: wrong})
    again = hand.order()
    assert (again.run, again.tickets) == (0, order.tickets)
    assert served.weights() == before
    hand.answer(again)
    while not (order := hand.order()).tickets:
        pass
    assert (order.run > 1, order.tickets[0].step) == (True, 1)
    hand.leave()
    served.work()
    assert served.weights() == plain_training(job)


def test_a_gradient_that_is_not_finite_changes_nothing(
    serve: Serve, job: ps_pb.Assignment, plain_training: PlainTraining
) -> None:
    """With right sums."""
    served = serve(job)
    hand, order = _enter_run(served)
    before = served.weights()
    end = hand.connection.run_end
    for slot, ticket in enumerate(order.tickets):
        result = hand.computation.answer(ticket, hand.connection.weights, 0, end.gradients[slot])
        end.gradients[slot][-1] = np.inf if slot == 2 else 0
        end.report_result(slot, order.run, 0, result.sums, 0.01)
    assert hand.order().run == 0
    assert served.weights() == before
    hand.leave()
    served.work()
    assert served.weights() == plain_training(job)


def test_a_result_by_message_in_a_run_ends_the_membership(
    serve: Serve, job: ps_pb.Assignment, plain_training: PlainTraining
) -> None:
    """It would be one too many."""
    served = serve(job)
    hand, order = _enter_run(served)
    hand.send(hand.compute(order.tickets[0], 0))
    code, reason = hand.end()
    assert code == grpc.StatusCode.UNAVAILABLE
    assert "it sent a result while it makes steps without messages" in reason
    served.work()
    assert served.weights() == plain_training(job)


@pytest.mark.parametrize("noise", [False, True])
def test_one_that_never_reports_is_given_up(
    serve: Serve, job: ps_pb.Assignment, plain_training: PlainTraining, monkeypatch: pytest.MonkeyPatch, noise: bool
) -> None:
    """Also if it writes whatever it can all the time: to the bell, to its statistics, and old stamps to its slots."""
    monkeypatch.setattr("service.parameter_server.engine._CHECK_SECONDS", 0.02)
    served = serve(job, patience_seconds=0.3)
    hand, _ = _enter_run(served)
    bell, slots = hand.connection.run_end._kept[1], hand.connection.run_end._kept[2]._slots
    stop = threading.Event()

    def make_noise() -> None:
        generator = np.random.default_rng(1)
        while not stop.is_set():
            bell[:] = generator.integers(0, 256, bell.size)
            slots[:] = generator.integers(0, 256, slots.size)
            hand.connection.run_end.statistics[:] = np.nan
            hand.connection.run_end.gradients[0][:] = np.nan

    with ThreadPoolExecutor(1) as pool:
        noisy = pool.submit(make_noise) if noise else None
        assert served.state().progress.step == 0
        assert hand.end() == (grpc.StatusCode.UNAVAILABLE, f"no word of {hand.name} for 0 s: join again")
        served.work()  # beside the noise, which goes on
        stop.set()
        if noisy:
            noisy.result()
    assert served.weights() == plain_training(job)
    assert served.state().statistics.workers_lost >= 1


def test_gradients_that_change_while_they_are_read_end_nothing_but_the_training(
    serve: Serve, job: ps_pb.Assignment
) -> None:
    """Its numbers are those of a worker that lies; steps go on to the end, or the training diverges."""
    served = serve(job)
    hand, order = _enter_run(served)
    end, stop = hand.connection.run_end, threading.Event()

    def scribble() -> None:
        generator = np.random.default_rng(1)
        while not stop.is_set():
            for gradient in end.gradients:
                gradient[:] = generator.normal(size=gradient.size)

    with ThreadPoolExecutor(1) as pool:
        scribbler = pool.submit(scribble)
        for step in range(12):  # of whole mini-batches, each with four rows in a part
            for slot in range(4):
                end.report_result(slot, order.run, step, SampleSums(1.0, 4, 0), 0.01)
            if not end.wait_for_version(order.run, step + 1, SECONDS):
                break
        stop.set()
        scribbler.result()
    assert step == 11
    hand.leave()
    served.work()
    assert served.story()[-1] in ("finished", "diverged")


def test_weights_and_control_block_cannot_be_written(serve: Serve, job: ps_pb.Assignment) -> None:
    """Neither through a mapping, nor as a file; what a worker is given for writing is its own memory and the bell."""
    served = serve(job)
    request = ps_pb.JoinRequest(host_fingerprint=host_fingerprint(), process_id=os.getpid(), native_abi=native_abi())
    joined = served.stub.Join(request, metadata=((SECRET_KEY, "secret"),), timeout=SECONDS)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(b"\0" + joined.shared_connection.socket_name)
        connection.sendall(joined.token)
        _, files, _, _ = socket.recv_fds(connection, 1, 4)
    weights, results, control, bell = files
    for file in (weights, control):
        with pytest.raises(PermissionError):
            mmap.mmap(file, 0)
        with pytest.raises(PermissionError):
            os.write(file, b"x")
        with pytest.raises(PermissionError):
            os.ftruncate(file, 0)
        with pytest.raises(PermissionError):
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, 0)
    for file in (results, bell):
        mmap.mmap(file, 0).close()
        with pytest.raises(PermissionError):
            os.ftruncate(file, 0)
    for file in files:
        os.close(file)
