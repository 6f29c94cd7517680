"""A fleet, as the daemon sees it: one call to the cluster process."""

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

# A cluster process that has not stopped a fleet after so long is given up; the fleet's end is then its own.
_STOP_SECONDS: Final = 30.0

# How a call ends when the process at its other end does.
_LOST: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)

_End = AttemptFailed | AttemptLost
_News = TypeVar("_News")


class JobProcessesClient:
    """The CPUs of one attempt, and then its processes."""

    def __init__(
        self,
        stub: "cluster_grpc.ClusterServiceAsyncStub",
        metadata: Sequence[tuple[str, str]],
        how_lost: Callable[[grpc.aio.AioRpcError], Awaitable[str]],
    ) -> None:
        """Begins the call.

        Args:
            stub: Of the cluster process.
            metadata: That its calls have to carry.
            how_lost: Says how the cluster process was lost, given how a call broke.
        """
        loop = asyncio.get_running_loop()
        self._how_lost = how_lost
        self._requests: asyncio.Queue[cluster_pb.RunFleetRequest | None] = asyncio.Queue()
        self._reserved: asyncio.Future[bool] = loop.create_future()
        self._address: asyncio.Future[str] = loop.create_future()
        self._end: asyncio.Future[_End] = loop.create_future()
        # gRPC would give up a call whose reader is cancelled: nobody who may be cancelled reads or writes.
        self._call: Any = stub.RunFleet(self._sent(), metadata=metadata)
        self._reading = asyncio.create_task(self._read())

    async def reserve(self, workers: int, cpus_per_worker: int) -> bool:
        """Asks for the CPUs; whether they are there.

        Raises:
            AttemptLost: The cluster process is gone.
        """
        self._send(reserve=cluster_pb.Reservation(workers=workers, cpus_per_worker=cpus_per_worker))
        return await self._first_of(self._reserved)

    async def start(self, assignment: ps_pb.Assignment, secret: str) -> str:
        """Starts the processes; gives the address of the parameter server.

        Raises:
            AttemptLost: They did not start.
            AttemptFailed: They cannot start with this job.
        """
        self._send(launch=cluster_pb.Launch(assignment=assignment, secret=secret))
        return await self._first_of(self._address)

    async def failure(self) -> NoReturn:
        """Waits until a process fails for good.

        Raises:
            AttemptLost: The parameter server is gone, or a worker for good, or Ray.
            AttemptFailed: A worker failed in a way that another attempt would repeat.
        """
        raise await asyncio.shield(self._end)

    async def set_workers(self, workers: int) -> None:
        """Says how many workers there shall be; more are started as CPUs become free."""
        self._send(workers=workers)

    async def stop(self) -> None:
        """Stops the processes; returns when everything is given back."""
        self._requests.put_nowait(None)
        done, _ = await asyncio.wait([self._reading], timeout=_STOP_SECONDS)
        if not done:
            _log.warning("a fleet did not stop within %.0f s", _STOP_SECONDS)
            self._call.cancel()

    def _send(self, **step: Any) -> None:
        self._requests.put_nowait(cluster_pb.RunFleetRequest(**step))

    async def _sent(self) -> AsyncIterator[cluster_pb.RunFleetRequest]:
        while request := await self._requests.get():
            yield request

    async def _read(self) -> None:
        try:
            async for response in self._call:
                self._take(response)
            self._finish(AttemptLost("the fleet was stopped", cause="service"))
        except grpc.aio.AioRpcError as error:
            self._finish(await self._how_ended(error))
        except asyncio.CancelledError:
            # Of this call, not of this task: the connection to a lost process is closed, or nobody wants the fleet.
            self._finish(AttemptLost("Ray was lost: the connection was closed", cause="ray"))

    async def _how_ended(self, error: grpc.aio.AioRpcError) -> AttemptLost:
        if error.code() in _LOST:
            return AttemptLost(f"Ray was lost: {await self._how_lost(error)}", cause="ray")
        return AttemptLost(f"its processes could not be managed: {error.details()}", cause="service")

    def _take(self, response: cluster_pb.RunFleetResponse) -> None:
        match response.WhichOneof("news"):
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
        """The first end is the one that counts."""
        if not self._end.done():
            self._end.set_result(end)

    async def _first_of(self, news: "asyncio.Future[_News]") -> _News:
        """The news, unless the end comes first."""
        either: list[asyncio.Future[Any]] = [news, self._end]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if news.done():
            return news.result()
        raise self._end.result()
