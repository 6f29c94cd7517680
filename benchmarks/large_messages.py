"""Latency of a service's other calls beside large messages: ``python -m benchmarks.large_messages``.

One client asks for a small job every few milliseconds, while another process does what is dear: has specs of a megabyte
checked, deletes data sets and lists jobs beside a queue of such specs, or sends hundreds of large messages at once.
"""

import math
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import click
import grpc
import numpy as np
from google.protobuf.message import Message

from benchmarks.memory import figure
from nablad import Client
from nablad.local import LocalService
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2, jobs_pb2_grpc

_NODES = 340_000
_PROBE_SECONDS = 0.005
_OVERHEAD_BYTES = 100
_DEADLINE_SECONDS = 120.0


@dataclass(frozen=True)
class _Case:
    """Load beside the probes.

    Attributes:
        title: For the table.
        load: Makes the calls that are dear, for some seconds; runs in a process of its own.
    """

    title: str
    load: Callable[[str, float], None]


def _spec(nodes: int) -> spec_pb.JobSpec:
    """A job that no cluster has room for, with a megabyte of nodes in its cost, or less."""
    spec = spec_pb.JobSpec(name="large" if nodes else "small", data=spec_pb.DataSpec(train="rows"))
    spec.model.layers[:] = [4, _NODES, 2]
    spec.training.epochs = 1
    spec.distribution.workers = 64
    if nodes:
        term = spec.cost.inner.add(layer=1, term=spec_pb.TERM_SQUARED_ACTIVITY, weight=0.1)
        term.nodes.extend(range(nodes))
    return spec


def _name_4mb() -> Message:
    return jobs_pb2.GetJobRequest(job_id="x" * ((4 << 20) - _OVERHEAD_BYTES))


def _name_2mb() -> Message:
    return jobs_pb2.GetJobRequest(job_id="x" * ((2 << 20) - _OVERHEAD_BYTES))


def _large_request() -> Message:
    return jobs_pb2.CreateJobRequest(spec=_spec(_NODES), validate_only=True)


def _check_specs(address: str, seconds: float) -> None:
    spec = _spec(_NODES)
    with Client(address) as client:
        _repeat(seconds, lambda: client.submit(spec, validate_only=True))


def _delete_datasets(address: str, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder, Client(address) as client:
        file = _rows(Path(folder))

        def add_and_delete() -> None:
            client.add_dataset("unused", [file])
            client.delete_dataset("unused")

        _repeat(seconds, add_and_delete)


def _list_jobs(address: str, seconds: float) -> None:
    with Client(address) as client:
        _repeat(seconds, lambda: list(client.jobs()))


def _flood(address: str, seconds: float, *, method: str, message: Callable[[], Message], channels: int) -> None:
    """200 messages, all at once, again and again."""
    request = message()
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    opened = [grpc.insecure_channel(address, options=options) for _ in range(channels)]
    calls_of = [getattr(jobs_pb2_grpc.JobServiceStub(channel), method) for channel in opened]
    codes: Counter[str] = Counter()

    def flood() -> None:
        calls = [calls_of[number % channels].future(request, timeout=_DEADLINE_SECONDS) for number in range(200)]
        codes.update(call.code().name for call in calls)

    _repeat(seconds, flood)
    click.echo(f"  {channels} connections: {dict(codes)}", err=True)
    for channel in opened:
        channel.close()


_CASES: Mapping[str, _Case] = {
    "nothing": _Case("nothing else", lambda _, seconds: time.sleep(seconds)),
    "specs": _Case("specs of 1 MB are checked, one after the other", _check_specs),
    "delete": _Case("data sets are deleted; 150 jobs of 1 MB are queued", _delete_datasets),
    "list": _Case("jobs are listed; 150 jobs of 1 MB are queued", _list_jobs),
    "names-1": _Case(
        "200 names of 4 MB at once, on one connection", partial(_flood, method="GetJob", message=_name_4mb, channels=1)
    ),
    "names-40": _Case(
        "200 names of 4 MB at once, on 40 connections", partial(_flood, method="GetJob", message=_name_4mb, channels=40)
    ),
    "names-2": _Case(
        "200 names of 2 MB at once, on 40 connections", partial(_flood, method="GetJob", message=_name_2mb, channels=40)
    ),
    "crowd": _Case(
        "200 specs of 1 MB at once, on 40 connections",
        partial(_flood, method="CreateJob", message=_large_request, channels=40),
    ),
}


def _repeat(seconds: float, call: Callable[[], object]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        call()


def _run_case(name: str, address: str, seconds: float) -> None:
    _CASES[name].load(address, seconds)


def _probe(address: str, job_id: str, stop: threading.Event) -> list[float]:
    """Seconds that each call took, one after the other."""
    times = []
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = jobs_pb2_grpc.JobServiceStub(channel)
        while not stop.is_set():
            begun = time.perf_counter()
            stub.GetJob(jobs_pb2.GetJobRequest(job_id=job_id), timeout=_DEADLINE_SECONDS)
            times.append(time.perf_counter() - begun)
            time.sleep(_PROBE_SECONDS)
    return times


def _measure(daemon: LocalService, job_id: str, name: str, seconds: float) -> str:
    """A row of the table."""
    process = get_context("spawn").Process(target=_run_case, args=(name, daemon.address, seconds))
    before = figure(daemon.process.pid, "status", "VmRSS:")
    Path(f"/proc/{daemon.process.pid}/clear_refs").write_text("5")  # the peak begins anew
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        probes = pool.submit(_probe, daemon.address, job_id, stop)
        process.start()
        process.join()
        stop.set()
        times = sorted(probes.result())
    if process.exitcode:
        raise click.ClickException(f"the load of {name} ended with {process.exitcode}")
    p50, p99 = (times[math.ceil(share * len(times)) - 1] * 1e3 for share in (0.5, 0.99))
    grown = (figure(daemon.process.pid, "status", "VmHWM:") - before) / (1 << 20)
    title = _CASES[name].title
    return f"| {title} | {len(times)} | {p50:.1f} ms | {p99:.0f} ms | {times[-1] * 1e3:.0f} ms | {grown:.0f} MiB |"


def _rows(folder: Path) -> Path:
    file = folder / "rows.npz"
    generator = np.random.default_rng(1)
    np.savez(file, x=generator.normal(size=(40, 4)), y=np.arange(40) % 2)
    return file


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", default=6.0, show_default=True, help="Of each case.")
@click.option("--queued", default=150, show_default=True, help="Jobs of 1 MB in the queue.")
@click.option("--only", type=click.Choice(list(_CASES)), multiple=True, help="Cases to run; all if left out.")
def main(seconds: float, queued: int, only: tuple[str, ...]) -> None:
    """Measure what other calls take beside large messages, and what memory the service takes for them."""
    with (
        tempfile.TemporaryDirectory(prefix="nablad-bench-") as folder,
        LocalService(cpus=1) as daemon,
        daemon.client() as client,
    ):
        client.add_dataset("rows", [_rows(Path(folder))])
        job_id = client.submit(_spec(0)).job_id
        click.echo("| beside | calls | p50 | p99 | longest | memory |\n| --- | --: | --: | --: | --: | --: |")
        for name in only or _CASES:
            if name == "delete" or (name == "list" and "delete" not in only):
                for _ in range(queued):
                    client.submit(_spec(_NODES))
                queued = 0
            click.echo(_measure(daemon, job_id, name, seconds))


if __name__ == "__main__":
    main()
