"""Processes that are killed while steps are made without messages: the other end notices, and no bit changes."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from signal import SIGKILL
from typing import Any

import grpc
import pytest

from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from workers import from_spec
from workers.native.library import missing_reason
from workers.runtime.failpoints import VARIABLE
from workers.worker import _await_version

MakeJob = Callable[..., ps_pb.Assignment]
Serve = Callable[..., Any]
PlainTraining = Callable[[ps_pb.Assignment], bytes]
StartProgram = Callable[..., "subprocess.Popen[str]"]

pytestmark = pytest.mark.skipif(bool(missing_reason()), reason=missing_reason())

_WORKER = """
import sys
from workers.worker import work

work(sys.argv[1], "secret", threads=1, message_bytes=int(sys.argv[2]))
"""
_SERVER = """
import asyncio, sys
from pathlib import Path
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.process import start_parameter_server


async def serve():
    job = ps_pb.Assignment.FromString(Path(sys.argv[1]).read_bytes())
    running = await start_parameter_server(job, "secret", "127.0.0.1")
    print(running.address, flush=True)
    await running.wait()


asyncio.run(serve())
"""


@pytest.fixture
def start_program() -> Iterator[StartProgram]:
    """Starts a program in Python with some environment variables; it is killed at the end of the test."""
    with ExitStack() as started:

        def start(code: str, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | variables
            command = [sys.executable, "-c", code, *arguments]
            program = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            started.enter_context(program)
            started.callback(program.kill)
            return program

        yield start


@pytest.fixture
def job(make_job: MakeJob) -> ps_pb.Assignment:
    """A job of 26 steps that are made without messages."""
    return make_job(202, step_core="native", transport="shared")


@pytest.mark.parametrize("hit", [1, 6])
@pytest.mark.parametrize("name", ["worker.ordered", "worker.computing", "worker.reported"])
def test_a_worker_that_is_killed_in_a_run_changes_no_bit(
    serve: Serve,
    start_program: StartProgram,
    job: ps_pb.Assignment,
    plain_training: PlainTraining,
    name: str,
    hit: int,
) -> None:
    """The run ends, and the other worker makes the step anew."""
    served = serve(job)
    hand = served.hand(native=True)
    order = hand.order()
    killed = start_program(
        _WORKER, served.address, str(from_spec.message_bytes(job)), **{VARIABLE: f"{name}=kill@{hit}"}
    )
    served.wait_for("worker_joined", 2)
    hand.make_steps(order, 1)
    hand.work()
    assert killed.wait(30) == -SIGKILL
    assert served.weights() == plain_training(job)
    assert served.story()[:3] == ["worker_joined", "worker_joined", "worker_lost"]


def test_a_worker_leaves_its_wait_when_the_parameter_server_is_killed(
    start_program: StartProgram, make_hand: Callable[..., Any], job: ps_pb.Assignment, tmp_path: Path
) -> None:
    """It has reported its results, and waits for a version that never comes."""
    path = tmp_path / "job"
    path.write_bytes(job.SerializeToString())
    server = start_program(_SERVER, str(path))
    assert server.stdout
    with grpc.insecure_channel(server.stdout.readline().strip()) as channel:
        hand = make_hand(ps_grpc.ParameterServerServiceStub(channel), job)
        order = hand.order()
        end = hand.connection.run_end
        hand.report(order._replace(tickets=order.tickets[:3]), 0)
        assert end.wait_for_version(order.run, 1, 0.0) is None
        server.kill()
        assert not _await_version(hand.connection, end, order.run, 1)
        assert hand.connection.next_order() is None
        assert hand.end()[0] == grpc.StatusCode.UNAVAILABLE
