"""Ray cluster: one of our own on this machine, or one that runs elsewhere; its nodes, and reservations of their CPUs.

Ray places, starts, restarts and kills processes. It is never on the path of a step.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import ray
from ray.util.placement_group import PlacementGroup

from nablad.v1 import cluster_pb2 as cluster_pb
from service.cluster import error_lines
from service.cluster.errors import ClusterError
from service.cluster.job_processes import JobProcesses
from service.cluster.listeners import process_at, require_listener, require_loopback
from service.cluster.ray.actors import ServerHandle, WorkerHandle
from service.cluster.ray.placement import node_of, place, remove, try_to, wait_until_free
from service.cluster.ray.private import own_processes, require_ray_head
from service.cluster.ray.queries import list_nodes, own_node
from workers.runtime.concurrency import run_to_its_end

__all__ = ["RayCluster"]

_log = logging.getLogger(__name__)

# The object store is not used for training data; this is the least that Ray takes without complaint.
_OBJECT_STORE_BYTES: Final = 80 * 1024 * 1024


class RayCluster:
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
            require_ray_head(address)
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
            return own_processes()
        pid = process_at(own_node()["RayletSocketName"])
        return {pid: "raylet"} if pid else {}

    def check(self) -> None:
        """Returns when Ray answers; may wait for an answer for ever.

        Raises:
            Exception: It has no answer, of whatever kind.
        """
        if not own_node()["Alive"]:
            raise ClusterError("Ray has given up this node")

    async def nodes(self) -> list[cluster_pb.Node]:
        """The nodes that are there."""
        # On other threads, here and below: a cluster that does not answer must not stop the other fleets.
        return await asyncio.to_thread(list_nodes)

    async def reserve(self, workers: int, cpus_per_worker: int) -> JobProcesses | None:
        """The CPUs of a job, which are the fleet's until it is stopped; None when they cannot be had."""
        groups = await self._place(workers, cpus_per_worker)
        if not groups:
            return None
        return JobProcesses(_Reservation(groups, cpus_per_worker, self._place, loopback=self._embedded))

    async def _place(self, count: int, cpus: int) -> list[PlacementGroup]:
        async with self._placing:
            placing = asyncio.ensure_future(asyncio.to_thread(place, count, cpus))
            try:
                return await asyncio.shield(placing)
            except asyncio.CancelledError:
                await run_to_its_end(remove, await placing)
                raise


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

    async def start_server(self) -> ServerHandle:
        """The process of a parameter server, near the first worker."""
        node = await asyncio.to_thread(node_of, self._groups[0])
        return ServerHandle(node, loopback=self._loopback)

    def start_worker(self) -> WorkerHandle:
        """The process of a worker, on CPUs that are reserved."""
        return WorkerHandle(self._groups.pop(0), self._cpus)

    async def hire(self) -> WorkerHandle | None:
        """The process of one more worker; None when there are no CPUs for it."""
        try:
            groups = await self._place(1, self._cpus)
        except ray.exceptions.RayError as error:
            _log.warning("no worker could be added: %s", error_lines.sentence(error))
            return None
        self._had += groups
        return WorkerHandle(groups[0], self._cpus) if groups else None

    async def give_back(self) -> None:
        """The CPUs that nobody has taken; returns when Ray counts them, and those of dismissed workers, as free."""
        await run_to_its_end(remove, self._groups)
        await run_to_its_end(try_to, wait_until_free, self._had)
