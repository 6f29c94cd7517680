"""A training whose parameter server and workers make figures for metrics in every other window only."""

import asyncio
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from ctypes import c_bool
from dataclasses import asdict
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Final

import grpc

from benchmarks.errors import BenchmarkError
from benchmarks.load.windows import Window
from benchmarks.mnist_files import FirstRows
from benchmarks.scrapes.switch import obey
from benchmarks.works import Work
from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from service.datasets import fit_scaling
from service.datasets.source import StagedFile
from service.datasets.store import store
from service.parameter_server.process import start_parameter_server
from workers.from_spec import message_bytes
from workers.worker import SECRET_KEY, work

__all__ = ["FIGURES", "NONE", "run_trial"]

FIGURES, NONE = "with figures", "without figures"

_SECRET: Final = "secret"  # noqa: S105 (of a job that only exists here)
_METADATA: Final = ((SECRET_KEY, _SECRET),)
_EPOCHS: Final = 1_000_000
_START_SECONDS: Final = 60.0
_ANSWER_SECONDS: Final = 10.0
_END_SECONDS: Final = 10.0
# As the service asks.
_ASK_SECONDS: Final = 0.1
_HAVE_SEEN_ALL: Final = (1 << 64) - 1

_processes = multiprocessing.get_context("spawn")


def run_trial(rows: FirstRows, work_: Work, folder: Path, pairs: int, seconds: float) -> list[Window]:
    """The windows, in the order in which they were: one with figures, one without, so many times, and one with.

    Args:
        rows: Of MNIST.
        work_: What is trained.
        folder: For the data set.
        pairs: Of windows.
        seconds: Of each window, at least.

    Raises:
        BenchmarkError: The processes did not come to their first step.
    """
    assignment = _assignment(rows, work_, folder)
    wanted = _processes.RawValue(c_bool, True)
    with _training(assignment, work_, wanted) as stub:
        return _windows(stub, wanted, (*(FIGURES, NONE) * pairs, FIGURES), seconds)


def _assignment(rows: FirstRows, work_: Work, folder: Path) -> ps_pb.Assignment:
    spec, directory = work_.spec(epochs=_EPOCHS), folder / work_.name
    files = [StagedFile(file.name, file) for file in rows.files(work_.rows)]
    stored = store(files, datasets_pb.DataFiles(), directory)
    dataset = datasets_pb.Dataset(name=spec.data.train, **asdict(stored))
    return ps_pb.Assignment(
        job_id="figures",
        attempt=1,
        spec=spec,
        train=ps_pb.DataSource(dataset=dataset, directory=str(directory)),
        scaling=fit_scaling(spec.data.scaling, directory),
    )


@contextmanager
def _training(
    assignment: ps_pb.Assignment, work_: Work, wanted: c_bool
) -> "Iterator[ps_grpc.ParameterServerServiceStub]":
    """A parameter server and its workers, each a process; they are ended with the block."""
    body = assignment.SerializeToString()
    with ExitStack() as stack:
        address, told = _processes.Pipe(duplex=False)
        _start(stack, _serve, body, wanted, told)
        if not address.poll(_START_SECONDS):
            raise BenchmarkError("the parameter server did not start")
        where = address.recv()
        for _ in range(work_.spec().distribution.workers):
            _start(stack, _work, body, wanted, where)
        channel = stack.enter_context(grpc.insecure_channel(where))
        stub = ps_grpc.ParameterServerServiceStub(channel)
        deadline = time.monotonic() + _START_SECONDS
        while not _ask(stub).step:
            if time.monotonic() > deadline:
                raise BenchmarkError("the workers did not make a step")
            time.sleep(_ASK_SECONDS)
        yield stub


def _start(stack: ExitStack, target: object, *arguments: object) -> None:
    process = _processes.Process(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
    process.start()
    stack.callback(_end, process)


def _end(process: BaseProcess) -> None:
    process.kill()
    process.join(_END_SECONDS)


def _windows(
    stub: "ps_grpc.ParameterServerServiceStub", wanted: c_bool, names: Iterable[str], seconds: float
) -> list[Window]:
    """One after the other without a gap.

    The parameter server is asked as often as the service asks it, and for telemetry once in each window, as windows
    last about a second.
    """
    windows: list[Window] = []
    samples, now = _ask(stub).samples, time.time()
    for name in names:
        wanted.value = name == FIGURES
        window = Window(name, begin=now)
        before = samples
        _ask(stub, telemetry=True)
        while now - window.begin < seconds:
            time.sleep(_ASK_SECONDS)
            samples, now = _ask(stub).samples, time.time()
        window.end = now
        window.samples_per_second = (samples - before) / (now - window.begin)
        windows.append(window)
    return windows


def _ask(stub: "ps_grpc.ParameterServerServiceStub", *, telemetry: bool = False) -> jobs_pb.Progress:
    request = ps_pb.FollowRequest(seen=_HAVE_SEEN_ALL, telemetry=telemetry)
    return stub.Follow(request, metadata=_METADATA, timeout=_ANSWER_SECONDS).progress


def _end_with_parent() -> None:
    """Ends this process when the benchmark is gone, however it went: it would train for ever."""

    def wait() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def _serve(body: bytes, wanted: c_bool, told: Connection) -> None:
    _end_with_parent()
    obey(wanted)
    asyncio.run(_serve_until_killed(ps_pb.Assignment.FromString(body), told))


async def _serve_until_killed(assignment: ps_pb.Assignment, told: Connection) -> None:
    running = await start_parameter_server(assignment, _SECRET, "127.0.0.1")
    told.send(running.address)
    await running.wait()


def _work(body: bytes, wanted: c_bool, address: str) -> None:
    _end_with_parent()
    obey(wanted)
    work(address, _SECRET, threads=1, message_bytes=message_bytes(ps_pb.Assignment.FromString(body)))
