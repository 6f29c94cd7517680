"""ClusterService: the gRPC side of the cluster process."""

import asyncio
from collections.abc import AsyncIterator

from nablad.v1 import cluster_pb2 as cluster_pb
from nablad.v1 import cluster_pb2_grpc as cluster_grpc
from service.cluster.interfaces import ClusterLike, JobProcessesLike
from service.errors import AttemptFailed, AttemptLost
from service.rpc.error_translation import Context, answer_errors, require_secret

__all__ = ["ClusterServicer"]


@answer_errors
class ClusterServicer(cluster_grpc.ClusterServiceServicer):
    """Serves one cluster to callers that know the secret."""

    def __init__(self, cluster: ClusterLike, secret: str) -> None:
        self._cluster = cluster
        self._secret = secret
        self._running: set[JobProcessesLike] = set()

    async def close(self) -> None:
        """Stops the processes of all jobs."""
        await asyncio.gather(*(processes.stop() for processes in self._running))

    async def ListNodes(self, request: cluster_pb.ListNodesRequest, context: Context) -> cluster_pb.ListNodesResponse:
        """Returns the nodes that are alive."""
        await require_secret(context, self._secret, "process")
        return cluster_pb.ListNodesResponse(nodes=await self._cluster.list_nodes())

    # The generated base knows generators only. gRPC would close a generator when it is collected, and not at the moment
    # when its caller is gone.
    async def RunJobProcesses(  # type: ignore[override]
        self, requests: AsyncIterator[cluster_pb.RunJobProcessesRequest], context: Context
    ) -> None:
        """Runs the processes of one attempt until the caller has finished or a process has failed for good."""
        await require_secret(context, self._secret, "process")
        steps = aiter(requests)
        reservation = (await anext(steps)).reserve
        processes = await self._cluster.reserve_cpus(reservation.workers, reservation.cpus_per_worker)
        if processes is None:
            await context.write(cluster_pb.RunJobProcessesResponse(reserved=False))
            return
        self._running.add(processes)
        try:
            await context.write(cluster_pb.RunJobProcessesResponse(reserved=True))
            if end := await _run(processes, steps, context):
                await context.write(end)
        finally:
            await processes.stop()
            self._running.discard(processes)


async def _run(
    processes: JobProcessesLike, steps: AsyncIterator[cluster_pb.RunJobProcessesRequest], context: Context
) -> cluster_pb.RunJobProcessesResponse | None:
    """Returns how the processes ended; None if the caller has finished before."""
    step = await anext(steps, None)
    if step is None:
        return None
    run = asyncio.ensure_future(_run_until_failure(processes, step.launch, context))
    scaling = asyncio.ensure_future(_scale_on_request(processes, steps))
    try:
        await asyncio.wait([run, scaling], return_when=asyncio.FIRST_COMPLETED)
        if scaling.done():
            scaling.result()
            return None
        return run.result()
    finally:
        run.cancel()
        scaling.cancel()
        await asyncio.gather(run, scaling, return_exceptions=True)


async def _run_until_failure(
    processes: JobProcessesLike, launch: cluster_pb.Launch, context: Context
) -> cluster_pb.RunJobProcessesResponse:
    try:
        address = await processes.start(launch.assignment, launch.secret)
        await context.write(cluster_pb.RunJobProcessesResponse(address=address))
        await processes.wait_for_failure()
    except AttemptLost as loss:
        return cluster_pb.RunJobProcessesResponse(lost=_end_message(loss))
    except AttemptFailed as failure:
        return cluster_pb.RunJobProcessesResponse(failed=_end_message(failure))


async def _scale_on_request(
    processes: JobProcessesLike, steps: AsyncIterator[cluster_pb.RunJobProcessesRequest]
) -> None:
    """Scales the workers at each request; returns when the caller has finished."""
    async for step in steps:
        await processes.scale_workers(step.workers)


def _end_message(end: AttemptLost | AttemptFailed) -> cluster_pb.JobProcessesEnd:
    cause = end.cause if isinstance(end, AttemptLost) else ""
    return cluster_pb.JobProcessesEnd(reason=str(end), last_error_lines=end.error_lines, cause=cause)
