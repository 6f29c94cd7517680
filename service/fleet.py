"""The processes of a job, through Ray: the one file that knows it.

Ray places, starts, restarts and kills processes. It is never on the path of a step.
"""

import asyncio
import logging
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

# Before ray is imported: it reads these once. A cluster asks for the token that was there when it was started, but
# those who join have to be told to send it.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys() or Path("~/.ray/auth_token").expanduser().exists():
    os.environ.setdefault("RAY_AUTH_MODE", "token")

import ray
from ray.util import get_node_ip_address
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.outcomes import AttemptFailed, AttemptLost
from service.parameter_server.process import RunningParameterServer, start_parameter_server
from service.waiting import run_to_its_end
from workers import build
from workers.worker import ParameterServerLostError, work

__all__ = ["Cluster", "ClusterError", "Fleet"]

_log = logging.getLogger(__name__)

# A worker that dies is replaced this often before the attempt counts as lost.
_REPLACEMENTS = 20
# The object store is not used for training data; this is the least that Ray takes without complaint.
_OBJECT_STORE_BYTES = 80 * 1024 * 1024
# How often free CPUs are looked for, and how long a placement group may take to get them.
_LOOK_SECONDS = 0.2
_PLACING_SECONDS = 10.0
_CONNECT_SECONDS = 5.0
_START_SECONDS = 120.0


class ClusterError(Exception):
    """Ray could not be started or reached."""


class _ParameterServerProcess:
    """The Ray actor that hosts a parameter server."""

    def __init__(self) -> None:
        self._server: RunningParameterServer | None = None

    async def start(self, assignment: bytes, secret: str, *, loopback: bool) -> str:
        host: str = "127.0.0.1" if loopback else get_node_ip_address()  # type: ignore[no-untyped-call]
        self._server = await start_parameter_server(ps_pb.Assignment.FromString(assignment), secret, host)
        return self._server.address

    async def run(self) -> None:
        assert self._server is not None  # noqa: S101 (called after start)
        await self._server.wait()


class _WorkerProcess:
    """The Ray actor that hosts a worker."""

    def run(self, address: str, secret: str, threads: int, message_bytes: int) -> None:
        work(address, secret, threads=threads, message_bytes=message_bytes)


class Cluster:
    """A Ray cluster: one of our own on this machine, or one that runs elsewhere."""

    def __init__(self, address: str | None, cpus: int, folder: Path) -> None:
        """Starts or joins Ray. Call it from the main thread: an embedded Ray ends with the thread that started it.

        Args:
            address: Of a running cluster; None starts one in this process.
            cpus: CPUs that an embedded Ray offers.
            folder: For the sockets and logs of an embedded Ray; what a killed daemon left there is removed. Its path
                must be short, as those of sockets have to be.

        Raises:
            ClusterError: Ray did not start, or nothing answers at the address.
        """
        if address is not None:
            _require_listener(address)
        self._embedded = address is None
        self._folder = folder
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING, "namespace": "nablad"}
        if self._embedded:
            # When this process is killed, Ray's own look for each other no longer than so many seconds, and end.
            os.environ["RAY_gcs_rpc_server_reconnect_timeout_s"] = "10"  # noqa: SIM112 (so it is called)
            options |= {"num_cpus": cpus, "include_dashboard": False, "_temp_dir": str(folder)}
            options |= {"object_store_memory": _OBJECT_STORE_BYTES, "address": "local"}
        else:
            options |= {"address": address}
        try:
            if self._embedded:
                self._remove_folder()
                folder.mkdir(mode=0o700)
            ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            self._remove_folder()
            raise ClusterError(
                f"Ray {'did not start' if self._embedded else f'at {address} is not there'}: {error}"
            ) from error

    def close(self) -> None:
        """Leaves the cluster; an embedded one ends with all its processes."""
        ray.shutdown()
        self._remove_folder()

    async def node_cpus(self) -> list[int]:
        """The CPUs of each node that is there, busy or not."""
        return await asyncio.to_thread(_node_cpus)

    @asynccontextmanager
    async def reserve(self, workers: int, cpus_per_worker: int) -> AsyncIterator["Fleet"]:
        """Waits for the CPUs of a job, and gives them and every process on them back at the end.

        Ray loses the CPUs of a placement group that is removed while they are being given out (ray#64693). So a group
        is made only when the CPUs are free, and is not removed before it has them or has waited for them in vain.
        """
        placing: asyncio.Future[PlacementGroup | None]
        group = None
        while group is None:
            # On other threads, here and below: a cluster that does not answer must not stop the whole service.
            while await asyncio.to_thread(_free_cpus) < workers * cpus_per_worker:  # noqa: ASYNC110 (there is no event)
                await asyncio.sleep(_LOOK_SECONDS)
            placing = asyncio.ensure_future(asyncio.to_thread(_place, workers, cpus_per_worker))
            try:
                group = await asyncio.shield(placing)
            except asyncio.CancelledError:
                if group := await placing:
                    await run_to_its_end(remove_placement_group, group)
                raise
        fleet = Fleet(group, workers, cpus_per_worker, loopback=self._embedded)
        try:
            yield fleet
        finally:
            await fleet.stop()

    def _remove_folder(self) -> None:
        if self._embedded and self._folder.exists():
            # A process of Ray may still be writing its last lines; the next start sweeps what is left then.
            shutil.rmtree(self._folder, ignore_errors=True)


class Fleet:
    """The parameter server and the workers of one attempt."""

    def __init__(self, group: PlacementGroup, workers: int, cpus_per_worker: int, *, loopback: bool) -> None:
        self._group = group
        self._workers = workers
        self._cpus_per_worker = cpus_per_worker
        self._loopback = loopback
        self._actors: list[Any] = []
        self._server_run: asyncio.Future[None] | None = None
        self._worker_runs: list[asyncio.Future[None]] = []

    async def start(self, assignment: ps_pb.Assignment, secret: str) -> str:
        """Starts the processes.

        Returns:
            The address of the parameter server.

        Raises:
            AttemptLost: The parameter server did not start.
        """
        parameter_server = self._actor(_ParameterServerProcess, bundle=0, num_cpus=0)
        # Their processes start while the parameter server's does.
        workers = [self._worker(bundle) for bundle in range(self._workers)]
        try:
            async with asyncio.timeout(_START_SECONDS):
                address: str = await parameter_server.start.remote(
                    assignment.SerializeToString(), secret, loopback=self._loopback
                )
        except ray.exceptions.RayError as error:
            raise AttemptLost(f"the parameter server did not start: {_cause(error)}") from error
        except TimeoutError as error:
            raise AttemptLost(f"the parameter server did not start within {_START_SECONDS:.0f} s") from error
        self._server_run = asyncio.wrap_future(parameter_server.run.remote().future())
        message_bytes = build.message_bytes(assignment)
        for worker in workers:
            run = worker.run.remote(address, secret, self._cpus_per_worker, message_bytes)
            self._worker_runs.append(asyncio.wrap_future(run.future()))
        return address

    async def failure(self) -> NoReturn:
        """Waits until a process fails for good. A worker that merely dies is replaced and does not count.

        Raises:
            AttemptLost: The parameter server is gone, or a worker for good, with its process or its link.
            AttemptFailed: A worker failed in a way that a replacement would repeat.
        """
        running = {*self._worker_runs} | ({self._server_run} if self._server_run else set())
        while True:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            if self._server_run in done:
                error = self._server_run.exception()
                raise AttemptLost(f"the parameter server was lost: {_cause(error) if error else 'it ended'}")
            for error in filter(None, (run.exception() for run in done)):
                raise _outcome(error)

    async def stop(self) -> None:
        """Kills the processes that are left and gives the CPUs back; what Ray refuses is logged."""
        for run in (self._server_run, *self._worker_runs):
            if run is not None:
                run.cancel()
        await run_to_its_end(self._kill)

    def _kill(self) -> None:
        for actor in self._actors:
            _try(ray.kill, actor)
        _try(remove_placement_group, self._group)

    def _worker(self, bundle: int) -> Any:
        restarts = {"max_restarts": _REPLACEMENTS, "max_task_retries": -1}
        return self._actor(_WorkerProcess, bundle=bundle, num_cpus=self._cpus_per_worker, **restarts)

    def _actor(self, process: type, *, bundle: int, **options: Any) -> Any:
        strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=bundle)
        actor: Any = ray.remote(process).options(scheduling_strategy=strategy, **options).remote()
        self._actors.append(actor)
        return actor


def _try(function: Callable[[Any], None], thing: Any) -> None:
    try:
        function(thing)
    except (ray.exceptions.RayError, ValueError, RuntimeError) as error:
        _log.warning("Ray did not clean up: %s", error)


def _node_cpus() -> list[int]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]]


def _free_cpus() -> float:
    resources: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    return resources.get("CPU", 0)


def _place(workers: int, cpus_per_worker: int) -> PlacementGroup | None:
    """A placement group with its CPUs; None when somebody else took them, or no single node has enough for a worker."""
    group: PlacementGroup = placement_group([{"CPU": cpus_per_worker}] * workers, strategy="PACK")
    if group.wait(_PLACING_SECONDS):
        return group
    remove_placement_group(group)
    return None


def _require_listener(address: str) -> None:
    """Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ClusterError(f"{address!r} is not the address of a Ray cluster: give HOST:PORT, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"no Ray cluster answers at {address}: start one with `ray start --head` ({error})"
        ) from error


def _outcome(error: BaseException) -> AttemptFailed | AttemptLost:
    """What a worker's end means: an error of the program would come again, the loss of a process or a link need not."""
    program = isinstance(error, ray.exceptions.RayTaskError) and not isinstance(error.cause, ParameterServerLostError)
    return (AttemptFailed if program else AttemptLost)(f"a worker failed: {_cause(error)}")


def _cause(error: BaseException) -> str:
    """The last line of what happened in a Ray process, which says what; the lines before say where."""
    cause = getattr(error, "cause", None) or error
    lines = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {lines[-1].strip() if lines else 'no message'}"
