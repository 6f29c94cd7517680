"""Ray: a cluster, its CPUs, and the processes on them. The one file that knows it.

Ray places, starts, restarts and kills processes. It is never on the path of a step.
"""

import asyncio
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import ray
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc
from ray.util import get_node_ip_address
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from nablad.v1 import cluster_pb2 as cluster_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.cluster import error_lines
from service.cluster.errors import ClusterError, ProcessError
from service.cluster.fleet import Fleet
from service.cluster.listeners import process_at, require_head, require_listener, require_loopback
from service.parameter_server.process import RunningParameterServer, start_parameter_server
from service.waiting import run_to_its_end
from workers.worker import work

__all__ = ["Cluster"]

_log = logging.getLogger(__name__)

# A worker that dies is replaced this often before the attempt counts as lost.
_REPLACEMENTS: Final = 20
# The object store is not used for training data; this is the least that Ray takes without complaint.
_OBJECT_STORE_BYTES: Final = 80 * 1024 * 1024
# How long placement groups may take to get their CPUs.
_PLACING_SECONDS: Final = 10.0
# How long CPUs that were given back may take to be free, and how often to look.
_FREEING_SECONDS: Final = 5.0
_FREEING_LOOK_SECONDS: Final = 0.01
# For what a lost process wrote to its log.
_READ_SECONDS: Final = 5.0
# Of a traceback, the lines that say most.
_TRACEBACK_LINES: Final = 10


class _Whereabouts:
    """What every process of a fleet can be asked: its process id, its node, and the log of its errors."""

    def whereabouts(self) -> tuple[int, str, str]:
        node: str = ray.get_runtime_context().get_node_id()
        return os.getpid(), node, str(Path("/proc/self/fd/2").readlink())


class _ParameterServerProcess(_Whereabouts):
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


class _WorkerProcess(_Whereabouts):
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
            folder: For the sockets and logs of an embedded Ray. Its path must be short, as those of sockets have to be.

        Raises:
            ClusterError: Ray did not start, or no Ray answers at the address.
        """
        if address is None:
            require_loopback()
        else:
            require_listener(address)
            _require_head(address)
        self._embedded = address is None
        # One at a time: between the look for free CPUs and the groups that take them, nobody else may take them.
        self._placing = asyncio.Lock()
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING, "namespace": "nablad"}
        if self._embedded:
            options |= {"num_cpus": cpus, "include_dashboard": False, "_temp_dir": str(folder)}
            options |= {"object_store_memory": _OBJECT_STORE_BYTES, "address": "local"}
        else:
            options |= {"address": address}
        try:
            ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise ClusterError(
                f"Ray {'did not start' if self._embedded else f'at {address} is not there'}: {error}"
            ) from error

    def leave(self) -> None:
        """Tells a cluster that runs elsewhere that this process goes; an embedded one ends with this one's group."""
        ray.shutdown()

    def processes(self) -> Mapping[int, str]:
        """Names by process id: Ray's own processes on this host without which there is no Ray."""
        if self._embedded:
            node: Any = ray._private.worker._global_node
            own: dict[str, Any] = node.all_processes
            return {info.process.pid: name for name in ("gcs_server", "raylet") for info in own.get(name, [])}
        pid = process_at(_own_node()["RayletSocketName"])
        return {pid: "raylet"} if pid else {}

    def check(self) -> None:
        """Returns when Ray answers; may wait for an answer for ever.

        Raises:
            Exception: It has no answer, of whatever kind.
        """
        if not _own_node()["Alive"]:
            raise ClusterError("Ray has given up this node")

    async def nodes(self) -> list[cluster_pb.Node]:
        """The nodes that are there."""
        # On other threads, here and below: a cluster that does not answer must not stop the other fleets.
        return await asyncio.to_thread(_nodes)

    async def reserve(self, workers: int, cpus_per_worker: int) -> Fleet | None:
        """The CPUs of a job, which are the fleet's until it is stopped; None when they cannot be had."""
        groups = await self._place(workers, cpus_per_worker)
        if not groups:
            return None
        return Fleet(_Reservation(groups, cpus_per_worker, self._place, loopback=self._embedded))

    async def _place(self, count: int, cpus: int) -> list[PlacementGroup]:
        async with self._placing:
            placing = asyncio.ensure_future(asyncio.to_thread(_place, count, cpus))
            try:
                return await asyncio.shield(placing)
            except asyncio.CancelledError:
                await run_to_its_end(_remove, await placing)
                raise


class _Process:
    """A Ray actor."""

    def __init__(self, process: type, strategy: object, **options: Any) -> None:
        self.actor = _remote(process).options(scheduling_strategy=strategy, **options).remote()
        # Asked now, because a process that is gone cannot be asked; nobody waits for the answer.
        self._whereabouts = self.actor.whereabouts.remote()

    async def answer(self, reference: Any) -> Any:
        """What a method of the actor returned.

        Raises:
            ProcessError: It raised, or the process is gone.
        """
        try:
            return await asyncio.wrap_future(reference.future())
        except ray.exceptions.RayError as error:
            cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else None
            lines = await self._last_lines(error, traceback=cause is not None)
            raise ProcessError(error_lines.sentence(cause or error), cause, lines) from error

    def kill(self) -> None:
        _try(ray.kill, self.actor)

    async def _last_lines(self, error: Exception, *, traceback: bool) -> str:
        """Of its log, and of the traceback if there is one."""
        raised = error_lines.last_lines(str(error), _TRACEBACK_LINES) if traceback else []
        try:
            async with asyncio.timeout(_READ_SECONDS):
                log = await self._read_log(error)
        except (TimeoutError, ray.exceptions.RayError) as unread:
            _log.warning("the log of a lost process could not be read: %s", error_lines.sentence(unread))
            log = ""
        return "\n".join([*error_lines.last_lines(log, error_lines.MOST_LINES - len(raised)), *raised])

    async def _read_log(self, error: Exception) -> str:
        """On the node where it is."""
        pid, node, path = await asyncio.to_thread(ray.get, self._whereabouts, timeout=0)
        # A worker may have been replaced since it told.
        if said := re.search(r"\bpid[:=] ?(\d+)", str(error)):
            pid = int(said.group(1))
        if node == _own_node_id():
            return await asyncio.to_thread(error_lines.read_end, path, pid)
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        reader = ray.remote(error_lines.read_end).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        text: str = await asyncio.wrap_future(reader.remote(path, pid).future())
        return text


class _Server(_Process):
    """A parameter server, on no CPU of its own."""

    def __init__(self, node: str, *, loopback: bool) -> None:
        """Starts the process on this node, or not at all."""
        # Not softly: what needs no resources, Ray would then start on any node.
        super().__init__(_ParameterServerProcess, NodeAffinitySchedulingStrategy(node, soft=False), num_cpus=0)
        self._loopback = loopback

    async def start(self, assignment: ps_pb.Assignment, secret: str) -> str:
        """Starts to serve; gives the address."""
        started = self.actor.start.remote(assignment.SerializeToString(), secret, loopback=self._loopback)
        address: str = await self.answer(started)
        return address

    async def run(self) -> None:
        """Until it ends, which it does not before it is dismissed."""
        await self.answer(self.actor.run.remote())

    async def dismiss(self) -> None:
        """Kills the process."""
        await run_to_its_end(self.kill)


class _Worker(_Process):
    """A worker on CPUs of its own."""

    def __init__(self, group: PlacementGroup, cpus: int) -> None:
        """Starts the process."""
        strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
        restarts = {"max_restarts": _REPLACEMENTS, "max_task_retries": -1}
        super().__init__(_WorkerProcess, strategy, num_cpus=cpus, **restarts)
        self._group = group
        self._cpus = cpus
        self._run: Any = None

    def begin(self, address: str, secret: str, message_bytes: int) -> None:
        """Sets it to work for the parameter server at this address."""
        self._run = self.actor.run.remote(address, secret, self._cpus, message_bytes)

    async def run(self) -> None:
        """Until the parameter server has let it go."""
        await self.answer(self._run)

    async def dismiss(self) -> None:
        """Kills the process and gives the CPUs back; what Ray refuses is logged."""
        await run_to_its_end(self._end)

    def _end(self) -> None:
        self.kill()
        _remove([self._group])


class _Reservation:
    """The CPUs of a fleet."""

    def __init__(
        self,
        groups: Sequence[PlacementGroup],
        cpus_per_worker: int,
        place: Callable[[int, int], Awaitable[list[PlacementGroup]]],
        *,
        loopback: bool,
    ) -> None:
        """`groups` hold the CPUs of one worker each; `place` gives more of them, or none."""
        self._groups = list(groups)  # those without a worker
        self._had = list(groups)
        self._cpus = cpus_per_worker
        self._place = place
        self._loopback = loopback

    @property
    def workers(self) -> int:
        """For how many the CPUs are reserved and not yet taken."""
        return len(self._groups)

    async def start_server(self) -> _Server:
        """The process of a parameter server, near the first worker."""
        node = await asyncio.to_thread(_node_of, self._groups[0])
        return _Server(node, loopback=self._loopback)

    def start_worker(self) -> _Worker:
        """The process of a worker, on CPUs that are reserved."""
        return _Worker(self._groups.pop(0), self._cpus)

    async def hire(self) -> _Worker | None:
        """The process of one more worker; None when there are no CPUs for it."""
        try:
            groups = await self._place(1, self._cpus)
        except ray.exceptions.RayError as error:
            _log.warning("no worker could be added: %s", error_lines.sentence(error))
            return None
        self._had += groups
        return _Worker(groups[0], self._cpus) if groups else None

    async def give_back(self) -> None:
        """The CPUs that nobody has taken; returns when Ray counts them, and those of dismissed workers, as free."""
        await run_to_its_end(_remove, self._groups)
        await run_to_its_end(_try, _wait_until_free, self._had)


@cache
def _remote(process: type) -> Any:
    """The process for Ray; made once, because Ray keeps all that were ever made."""
    return ray.remote(process)


# -- questions to Ray, which may take a while --------------------------------------------------------------------------


def _require_head(address: str) -> None:
    # With the token and the certificates that Ray would send.
    with init_grpc_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        head: Any = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)  # type: ignore[no-untyped-call]
        request = gcs_service_pb2.GetClusterIdRequest()  # type: ignore[attr-defined]
        require_head(address, partial(head.GetClusterId, request))


def _own_node_id() -> str:
    node: str = ray.get_runtime_context().get_node_id()
    return node


def _own_node() -> dict[str, Any]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    own = _own_node_id()
    return next(node for node in nodes if node["NodeID"] == own)


def _free() -> dict[str, dict[str, float]]:
    """What is free, by node and name. Ray's public functions only know sums over all nodes."""
    free: dict[str, dict[str, float]] = ray._private.state.available_resources_per_node()  # type: ignore[no-untyped-call]
    return free


def _nodes() -> list[cluster_pb.Node]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    free = _free()
    return [
        cluster_pb.Node(
            cpus=int(node["Resources"].get("CPU", 0)), free_cpus=int(free.get(node["NodeID"], {}).get("CPU", 0))
        )
        for node in nodes
        if node["Alive"]
    ]


def _place(count: int, cpus: int) -> list[PlacementGroup]:
    """Groups with their CPUs, one for each worker; none when there is no room, or somebody else took it.

    Ray loses the CPUs of a placement group that is removed while they are being given out (ray#64693). So groups are
    made only when the CPUs are free, and are not removed before they have them or have waited for them in vain.
    """
    if sum(node.free_cpus // cpus for node in _nodes()) < count:
        return []
    deadline = time.monotonic() + _PLACING_SECONDS
    groups = [placement_group([{"CPU": cpus}]) for _ in range(count)]
    if all([group.wait(max(deadline - time.monotonic(), 0)) for group in groups]):  # noqa: C419 (each has to wait)
        return groups
    _remove(groups)
    return []


def _remove(groups: Sequence[PlacementGroup]) -> None:
    for group in groups:
        _try(remove_placement_group, group)


def _wait_until_free(groups: Sequence[PlacementGroup]) -> None:
    """Ray says that a group is removed before the nodes have its CPUs back."""
    bundles = tuple(group.id.hex() for group in groups)
    deadline = time.monotonic() + _FREEING_SECONDS
    while any(name.endswith(bundles) for node in _free().values() for name in node) and time.monotonic() < deadline:
        time.sleep(_FREEING_LOOK_SECONDS)


def _node_of(group: PlacementGroup) -> str:
    node: str = placement_group_table(group)["bundles_to_node_id"][0]
    return node


def _try(function: Callable[[Any], None], thing: Any) -> None:
    try:
        function(thing)
    except (ray.exceptions.RayError, ValueError, RuntimeError) as error:
        _log.warning("Ray did not clean up: %s", error)
