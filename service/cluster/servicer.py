"""The gRPC side of the cluster process."""

import asyncio
from collections.abc import AsyncIterator
from typing import NoReturn, Protocol

from nablad.v1 import cluster_pb2 as cluster_pb
from nablad.v1 import cluster_pb2_grpc as cluster_grpc
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.errors import AttemptFailed, AttemptLost
from service.rpc.error_translation import Context, answer_errors, require_secret

__all__ = ["ClusterLike", "ClusterServicer", "JobProcessesLike"]


class JobProcessesLike(Protocol):
    """The processes of one attempt."""

    async def start(self, assignment: ps_pb.Assignment, secret: str) -> str:
        """Starts them; gives the address of the parameter server."""
        ...

    def set_workers(self, workers: int) -> None:
        """Says how many workers there shall be."""
        ...

    async def failure(self) -> NoReturn:
        """Waits until one fails for good, and raises AttemptFailed or AttemptLost."""
        ...

    async def stop(self) -> None:
        """Ends them, and gives their CPUs back."""
        ...


class ClusterLike(Protocol):
    """Where fleets run."""

    async def nodes(self) -> list[cluster_pb.Node]:
        """The nodes that are there."""
        ...

    async def reserve(self, workers: int, cpus_per_worker: int) -> JobProcessesLike | None:
        """A fleet's CPUs; None if they cannot be had."""
        ...


@answer_errors
class ClusterServicer(cluster_grpc.ClusterServiceServicer):
    """Serves one cluster."""

    def __init__(self, cluster: ClusterLike, secret: str) -> None:
        """Calls without the secret are refused."""
        self._cluster = cluster
        self._secret = secret
        self._fleets: set[JobProcessesLike] = set()

    async def close(self) -> None:
        """Stops every fleet."""
        await asyncio.gather(*(fleet.stop() for fleet in self._fleets))

    async def ListNodes(self, request: cluster_pb.ListNodesRequest, context: Context) -> cluster_pb.ListNodesResponse:
        """The nodes that are there."""
        await require_secret(context, self._secret, "process")
        return cluster_pb.ListNodesResponse(nodes=await self._cluster.nodes())

    # The generated base only knows generators; but grpc would close one only when it is collected, not when the caller
    # is gone.
    async def RunFleet(  # type: ignore[override]
        self, requests: AsyncIterator[cluster_pb.RunFleetRequest], context: Context
    ) -> None:
        """One fleet, until the caller has finished or the fleet has ended."""
        await require_secret(context, self._secret, "process")
        steps = aiter(requests)
        asked = (await anext(steps)).reserve
        fleet = await self._cluster.reserve(asked.workers, asked.cpus_per_worker)
        if fleet is None:
            await context.write(cluster_pb.RunFleetResponse(reserved=False))
            return
        self._fleets.add(fleet)
        try:
            await context.write(cluster_pb.RunFleetResponse(reserved=True))
            if end := await _run(fleet, steps, context):
                await context.write(end)
        finally:
            await fleet.stop()
            self._fleets.discard(fleet)


async def _run(
    fleet: JobProcessesLike, steps: AsyncIterator[cluster_pb.RunFleetRequest], context: Context
) -> cluster_pb.RunFleetResponse | None:
    """How the fleet ended; None if the caller wants it no more."""
    step = await anext(steps, None)
    if step is None:
        return None
    life, orders = asyncio.ensure_future(_live(fleet, step.launch, context)), asyncio.ensure_future(_obey(steps, fleet))
    try:
        await asyncio.wait([life, orders], return_when=asyncio.FIRST_COMPLETED)
        if orders.done():
            orders.result()
            return None
        return life.result()
    finally:
        life.cancel()
        orders.cancel()
        await asyncio.gather(life, orders, return_exceptions=True)


async def _live(fleet: JobProcessesLike, launch: cluster_pb.Launch, context: Context) -> cluster_pb.RunFleetResponse:
    try:
        address = await fleet.start(launch.assignment, launch.secret)
        await context.write(cluster_pb.RunFleetResponse(address=address))
        await fleet.failure()
    except AttemptLost as loss:
        return cluster_pb.RunFleetResponse(lost=_end(loss))
    except AttemptFailed as failure:
        return cluster_pb.RunFleetResponse(failed=_end(failure))


async def _obey(steps: AsyncIterator[cluster_pb.RunFleetRequest], fleet: JobProcessesLike) -> None:
    """Until the caller has no more orders."""
    async for step in steps:
        fleet.set_workers(step.workers)


def _end(end: AttemptLost | AttemptFailed) -> cluster_pb.FleetEnd:
    cause = end.cause if isinstance(end, AttemptLost) else ""
    return cluster_pb.FleetEnd(reason=str(end), last_error_lines=end.error_lines, cause=cause)
