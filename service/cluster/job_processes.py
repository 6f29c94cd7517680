"""Job processes: the parameter server and the workers of one attempt, as the cluster process runs them."""

import asyncio
from typing import Any, Final, NoReturn, Protocol

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.cluster.errors import ProcessError
from service.cluster.worker_group import WorkerGroup, WorkerLike
from service.errors import AttemptFailed, AttemptLost, CheckpointError
from workers import from_spec
from workers.transport.session import ParameterServerLostError

__all__ = ["JobProcesses", "NewWorkerLike", "ReservationLike", "ServerLike"]

_START_SECONDS: Final = 120.0


class ServerLike(Protocol):
    """The process of a parameter server."""

    async def start(self, assignment: ps_pb.Assignment, secret: str) -> str:
        """Starts to serve; returns the address. Raises ProcessError."""
        ...

    async def run(self) -> None:
        """Returns when it ends; raises ProcessError when it is lost."""
        ...

    async def stop(self) -> None:
        """Ends the process; never raises."""
        ...


class NewWorkerLike(WorkerLike, Protocol):
    """The process of a worker that may not have started to work yet."""

    def start_work(self, address: str, secret: str, message_bytes: int) -> None:
        """Makes it work for the parameter server at this address."""
        ...


class ReservationLike(Protocol):
    """Reserved CPUs of a job."""

    @property
    def workers(self) -> int:
        """Number of workers whose CPUs are reserved and not in use yet."""
        ...

    async def start_server(self) -> ServerLike:
        """Starts the process of a parameter server."""
        ...

    def start_worker(self) -> NewWorkerLike:
        """Starts the process of a worker on reserved CPUs."""
        ...

    async def add_worker(self) -> NewWorkerLike | None:
        """Starts the process of one more worker; returns None if there are no CPUs for it."""
        ...

    async def release(self) -> None:
        """Releases the CPUs that are not in use; never raises."""
        ...


class JobProcesses:
    """The parameter server and the workers of one attempt, on reserved CPUs; see `JobProcessesLike`."""

    def __init__(self, reservation: ReservationLike) -> None:
        self._reservation = reservation
        self._wanted = reservation.workers
        self._server: ServerLike | None = None
        self._server_run: asyncio.Task[None] | None = None
        self._idle: list[NewWorkerLike] = []
        self._group = WorkerGroup(self._add_worker)
        self._work: tuple[str, str, int] = ("", "", 0)  # address, secret, message_bytes
        self._stopping: asyncio.Task[None] | None = None

    async def start(self, assignment: ps_pb.Assignment, secret: str) -> str:
        """Starts the processes; returns the address of the parameter server.

        Raises:
            AttemptLost: The parameter server did not start; another one may.
            AttemptFailed: It cannot start with this job.
        """
        self._server = await self._reservation.start_server()
        # The workers' processes start while the parameter server's does.
        self._idle = [self._reservation.start_worker() for _ in range(self._reservation.workers)]
        address = await _start_server(self._server, assignment, secret)
        self._server_run = asyncio.create_task(self._server.run())
        self._work = (address, secret, from_spec.message_bytes(assignment))
        for worker in self._idle:
            worker.start_work(*self._work)
        workers, self._idle = self._idle, []
        self._group.start(workers, self._wanted)
        return address

    async def scale_workers(self, workers: int) -> None:
        """Sets the number of workers, also before they are started."""
        self._wanted = workers
        if self._server_run:
            self._group.scale(workers)

    async def wait_for_failure(self) -> NoReturn:
        """Waits until a process fails for good. A worker that merely dies is replaced and does not count.

        Raises:
            AttemptLost: The parameter server is gone, or a worker for good, with its process or its connection.
            AttemptFailed: A worker failed in a way that a replacement would repeat.
        """
        run = self._server_run
        assert run is not None  # noqa: S101 (called after start)
        ends: list[asyncio.Future[Any]] = [run, self._group.failure]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if run.done():
            raise _server_loss(run.exception())
        raise _worker_failure(self._group.failure.result())

    async def stop(self) -> None:
        """Ends the processes that are left and releases the CPUs."""
        self._stopping = self._stopping or asyncio.create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        await self._group.close()
        if self._server_run:
            self._server_run.cancel()
        if self._server:
            await self._server.stop()
        for worker in self._idle:
            await worker.stop()
        await self._reservation.release()

    async def _add_worker(self) -> NewWorkerLike | None:
        if worker := await self._reservation.add_worker():
            worker.start_work(*self._work)
        return worker


async def _start_server(server: ServerLike, assignment: ps_pb.Assignment, secret: str) -> str:
    try:
        async with asyncio.timeout(_START_SECONDS):
            return await server.start(assignment, secret)
    except ProcessError as error:
        raise _start_failure(error) from error
    except TimeoutError as error:
        reason = f"the parameter server did not start within {_START_SECONDS:.0f} s"
        raise AttemptLost(reason, cause="parameter_server") from error


def _start_failure(error: ProcessError) -> AttemptFailed | AttemptLost:
    """Returns how an attempt ends whose parameter server did not start.

    A file that cannot be read may be readable later or on another node. Any other error of the program would be
    repeated.
    """
    reason = f"the parameter server did not start: {error}"
    if error.cause is not None and not isinstance(error.cause, CheckpointError | OSError):
        return AttemptFailed(reason, error_lines=error.error_lines)
    return AttemptLost(reason, cause="parameter_server", error_lines=error.error_lines)


def _server_loss(error: BaseException | None) -> AttemptLost:
    lines = error.error_lines if isinstance(error, ProcessError) else ""
    why = str(error) if error else "it ended"
    return AttemptLost(f"the parameter server was lost: {why}", cause="parameter_server", error_lines=lines)


def _worker_failure(error: ProcessError) -> AttemptFailed | AttemptLost:
    """Returns how an attempt ends with the failure of a worker.

    An error of the program would be repeated; the loss of a process or a connection need not be.
    """
    reason = f"a worker failed: {error}"
    if error.cause is not None and not isinstance(error.cause, ParameterServerLostError):
        return AttemptFailed(reason, error_lines=error.error_lines)
    return AttemptLost(reason, cause="worker", error_lines=error.error_lines)
