"""Client of job processes: one call of the cluster process, from the reservation of CPUs to their release."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, NoReturn, TypeVar

import grpc

from nablad.v1 import cluster_pb2 as cluster_pb
from nablad.v1 import cluster_pb2_grpc as cluster_grpc
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.errors import AttemptFailed, AttemptLost

__all__ = ["JobProcessesClient"]

_log = logging.getLogger(__name__)

# Time after which the call is cancelled; the cluster process then stops the job's processes by itself.
_STOP_SECONDS: Final = 30.0

# Codes of a call whose cluster process is gone.
_LOST: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)

_End = AttemptFailed | AttemptLost
_Answer = TypeVar("_Answer")


class JobProcessesClient:
    """Reserved CPUs of one attempt, and later the processes on them; see `JobProcessesLike`."""

    def __init__(
        self,
        stub: "cluster_grpc.ClusterServiceAsyncStub",
        metadata: Sequence[tuple[str, str]],
        explain_loss: Callable[[grpc.aio.AioRpcError], Awaitable[str]],
    ) -> None:
        """Starts the call.

        Args:
            stub: Stub of the cluster process.
            metadata: Metadata that its calls have to carry.
            explain_loss: Returns how the cluster process was lost, given the error of a call.
        """
        loop = asyncio.get_running_loop()
        self._explain_loss = explain_loss
        self._requests: asyncio.Queue[cluster_pb.RunJobProcessesRequest | None] = asyncio.Queue()
        self._reserved: asyncio.Future[bool] = loop.create_future()
        self._address: asyncio.Future[str] = loop.create_future()
        self._end: asyncio.Future[_End] = loop.create_future()
        # gRPC cancels a call whose reader is cancelled. So a task of its own reads, and callers wait for futures.
        self._call: Any = stub.RunJobProcesses(self._sent_requests(), metadata=metadata)
        self._reading = asyncio.create_task(self._read())

    async def reserve_cpus(self, workers: int, cpus_per_worker: int) -> bool:
        """Asks for the CPUs; returns whether they are reserved now.

        Raises:
            AttemptLost: The cluster process is gone.
        """
        self._send(reserve=cluster_pb.Reservation(workers=workers, cpus_per_worker=cpus_per_worker))
        return await self._wait_unless_ended(self._reserved)

    async def start(self, assignment: ps_pb.Assignment, secret: str) -> str:
        """Starts the processes; returns the address of the parameter server.

        Raises:
            AttemptLost: They did not start.
            AttemptFailed: They cannot start with this job.
        """
        self._send(launch=cluster_pb.Launch(assignment=assignment, secret=secret))
        return await self._wait_unless_ended(self._address)

    async def wait_for_failure(self) -> NoReturn:
        """Waits until a process fails for good.

        Raises:
            AttemptLost: The parameter server is gone, or a worker for good, or Ray.
            AttemptFailed: A worker failed in a way that another attempt would repeat.
        """
        raise await asyncio.shield(self._end)

    async def scale_workers(self, workers: int) -> None:
        """Sets the number of workers; more are started as CPUs become free."""
        self._send(workers=workers)

    async def stop(self) -> None:
        """Stops the processes; returns when all CPUs are released."""
        self._requests.put_nowait(None)
        done, _ = await asyncio.wait([self._reading], timeout=_STOP_SECONDS)
        if not done:
            _log.warning("the processes of a job did not stop within %.0f s", _STOP_SECONDS)
            self._call.cancel()

    def _send(self, **step: Any) -> None:
        self._requests.put_nowait(cluster_pb.RunJobProcessesRequest(**step))

    async def _sent_requests(self) -> AsyncIterator[cluster_pb.RunJobProcessesRequest]:
        while request := await self._requests.get():
            yield request

    async def _read(self) -> None:
        try:
            async for response in self._call:
                self._handle(response)
            self._finish(AttemptLost("its processes were stopped", cause="service"))
        except grpc.aio.AioRpcError as error:
            self._finish(await self._loss_by(error))
        except asyncio.CancelledError:
            # The call was cancelled, and not this task: by `stop`, or because the lost process's channel was closed.
            self._finish(AttemptLost("Ray was lost: the connection was closed", cause="ray"))

    async def _loss_by(self, error: grpc.aio.AioRpcError) -> AttemptLost:
        if error.code() in _LOST:
            return AttemptLost(f"Ray was lost: {await self._explain_loss(error)}", cause="ray")
        return AttemptLost(f"its processes could not be managed: {error.details()}", cause="service")

    def _handle(self, response: cluster_pb.RunJobProcessesResponse) -> None:
        match response.WhichOneof("event"):
            case "reserved":
                self._reserved.set_result(response.reserved)
            case "address":
                self._address.set_result(response.address)
            case "lost":
                lost = response.lost
                self._finish(AttemptLost(lost.reason, cause=lost.cause, error_lines=lost.last_error_lines))
            case "failed":
                failed = response.failed
                self._finish(AttemptFailed(failed.reason, error_lines=failed.last_error_lines))

    def _finish(self, end: _End) -> None:
        """Records how the processes ended; only the first call counts."""
        if not self._end.done():
            self._end.set_result(end)

    async def _wait_unless_ended(self, answer: "asyncio.Future[_Answer]") -> _Answer:
        """Returns the answer; raises the end of the processes if that comes first."""
        either: list[asyncio.Future[Any]] = [answer, self._end]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        raise self._end.result()
