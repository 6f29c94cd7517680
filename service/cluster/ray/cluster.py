"""Ray cluster, embedded or running elsewhere: its nodes, and reservations of their CPUs.

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
from service.cluster.errors import ClusterError, describe_error
from service.cluster.job_processes import JobProcesses
from service.cluster.listeners import process_at, require_listener, require_loopback
from service.cluster.ray.actors import ServerHandle, WorkerHandle
from service.cluster.ray.placement import log_failure, node_of, place_groups, remove_groups, wait_until_free
from service.cluster.ray.queries import core_processes, list_ray_nodes, own_node, require_ray_head
from workers.runtime.concurrency import run_to_its_end

__all__ = ["RayCluster"]

_log = logging.getLogger(__name__)

# Least size that Ray takes without a warning; the object store holds no training data.
_OBJECT_STORE_BYTES: Final = 80 * 1024 * 1024


class RayCluster:
    """A Ray cluster: embedded in this process, or running elsewhere; see `ClusterLike`."""

    def __init__(self, address: str | None, cpus: int, folder: Path) -> None:
        """Starts or joins Ray, on the main thread, because an embedded Ray ends with the thread that started it.

        Args:
            address: Address of a running cluster; None embeds Ray.
            cpus: CPUs that an embedded Ray offers.
            folder: Folder for the sockets and logs of an embedded Ray. Its path must be short, as a socket's must.

        Raises:
            ClusterError: Ray did not start, or no Ray answers at the address.
        """
        if address is None:
            require_loopback()
        else:
            require_listener(address)
            require_ray_head(address)
        self._embedded = address is None
        # Reservations run one at a time, because others must not take the CPUs between the check and the placement.
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

    def disconnect(self) -> None:
        """Disconnects from a cluster that runs elsewhere; an embedded one ends with this process's group."""
        ray.shutdown()

    def core_processes(self) -> Mapping[int, str]:
        """Returns the names, by process id, of the processes on this host without which Ray is lost."""
        if self._embedded:
            return core_processes()
        pid = process_at(own_node()["RayletSocketName"])
        return {pid: "raylet"} if pid else {}

    def require_alive(self) -> None:
        """Checks that Ray answers; may wait for its answer for ever.

        Raises:
            Exception: Ray's error, of any kind.
        """
        if not own_node()["Alive"]:
            raise ClusterError("Ray has given up this node")

    async def list_nodes(self) -> list[cluster_pb.Node]:
        """Returns the nodes that are alive."""
        # Ray is called on other threads, because a cluster that does not answer must not block the event loop.
        return await asyncio.to_thread(list_ray_nodes)

    async def reserve_cpus(self, workers: int, cpus_per_worker: int) -> JobProcesses | None:
        """Reserves the CPUs of a job until its processes are stopped; returns None if they are not free."""
        groups = await self._place(workers, cpus_per_worker)
        if not groups:
            return None
        return JobProcesses(_Reservation(groups, cpus_per_worker, self._place, loopback=self._embedded))

    async def _place(self, count: int, cpus: int) -> list[PlacementGroup]:
        async with self._placing:
            placing = asyncio.ensure_future(asyncio.to_thread(place_groups, count, cpus))
            try:
                return await asyncio.shield(placing)
            except asyncio.CancelledError:
                await run_to_its_end(remove_groups, await placing)
                raise


class _Reservation:
    """Reserved CPUs of a job, one placement group for each worker; see `ReservationLike`."""

    def __init__(
        self,
        groups: Sequence[PlacementGroup],
        cpus_per_worker: int,
        place: Callable[[int, int], Awaitable[list[PlacementGroup]]],
        *,
        loopback: bool,
    ) -> None:
        """`groups` have the CPUs of one worker each; `place` returns more of them, or none."""
        self._unused = list(groups)
        self._all = list(groups)
        self._cpus = cpus_per_worker
        self._place = place
        self._loopback = loopback

    @property
    def workers(self) -> int:
        """Number of workers whose CPUs are reserved and not in use yet."""
        return len(self._unused)

    async def start_server(self) -> ServerHandle:
        """Starts the process of a parameter server on the node of the first worker."""
        node = await asyncio.to_thread(node_of, self._unused[0])
        return ServerHandle(node, loopback=self._loopback)

    def start_worker(self) -> WorkerHandle:
        """Starts the process of a worker on reserved CPUs."""
        return WorkerHandle(self._unused.pop(0), self._cpus)

    async def add_worker(self) -> WorkerHandle | None:
        """Starts the process of one more worker; returns None if there are no CPUs for it."""
        try:
            groups = await self._place(1, self._cpus)
        except ray.exceptions.RayError as error:
            _log.warning("no worker could be added: %s", describe_error(error))
            return None
        self._all += groups
        return WorkerHandle(groups[0], self._cpus) if groups else None

    async def release(self) -> None:
        """Releases the unused CPUs; returns when Ray counts them, and those of stopped workers, as free."""
        await run_to_its_end(remove_groups, self._unused)
        await run_to_its_end(log_failure, wait_until_free, self._all)
