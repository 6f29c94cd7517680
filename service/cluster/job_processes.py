"""The processes of one attempt."""

import asyncio
from typing import Any, Final, NoReturn, Protocol

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.image import CheckpointError
from service.cluster.errors import ProcessError
from service.cluster.worker_group import WorkerGroup, WorkerLike
from service.errors import AttemptFailed, AttemptLost
from workers import from_spec
from workers.worker import ParameterServerLostError

__all__ = ["JobProcesses", "NewWorkerLike", "ReservationLike", "ServerLike"]

_START_SECONDS: Final = 120.0


class ServerLike(Protocol):
    """The process of a parameter server."""

    async def start(self, assignment: ps_pb.Assignment, secret: str) -> str:
        """Starts to serve; gives the address. Raises ProcessError."""
        ...

    async def run(self) -> None:
        """Returns when it ends; raises ProcessError when it is lost."""
        ...

    async def dismiss(self) -> None:
        """Ends the process; never raises."""
        ...


class NewWorkerLike(WorkerLike, Protocol):
    """The process of a worker that may not have begun yet."""

    def begin(self, address: str, secret: str, message_bytes: int) -> None:
        """Sets it to work for the parameter server at this address."""
        ...


class ReservationLike(Protocol):
    """The CPUs of a fleet."""

    @property
    def workers(self) -> int:
        """For how many the CPUs are reserved and not yet taken."""
        ...

    async def start_server(self) -> ServerLike:
        """The process of a parameter server."""
        ...

    def start_worker(self) -> NewWorkerLike:
        """The process of a worker, on CPUs that are reserved."""
        ...

    async def hire(self) -> NewWorkerLike | None:
        """The process of one more worker; None when there are no CPUs for it."""
        ...

    async def give_back(self) -> None:
        """The CPUs that nobody has taken; never raises."""
        ...


class JobProcesses:
    """The parameter server and the workers of one attempt."""

    def __init__(self, reservation: ReservationLike) -> None:
        self._reservation = reservation
        self._wanted = reservation.workers
        self._server: ServerLike | None = None
        self._server_run: asyncio.Task[None] | None = None
        self._idle: list[NewWorkerLike] = []
        self._crew = WorkerGroup(self._hire)
        self._work: tuple[str, str, int] = ("", "", 0)  # address, secret, message_bytes
        self._stopping: asyncio.Task[None] | None = None

    async def start(self, assignment: ps_pb.Assignment, secret: str) -> str:
        """Starts the processes.

        Returns:
            The address of the parameter server.

        Raises:
            AttemptLost: The parameter server did not start; another one may.
            AttemptFailed: It cannot start with this job.
        """
        self._server = await self._reservation.start_server()
        # Their processes start while the parameter server's does.
        self._idle = [self._reservation.start_worker() for _ in range(self._reservation.workers)]
        address = await _started(self._server, assignment, secret)
        self._server_run = asyncio.create_task(self._server.run())
        self._work = (address, secret, from_spec.message_bytes(assignment))
        for worker in self._idle:
            worker.begin(*self._work)
        workers, self._idle = self._idle, []
        self._crew.begin(workers, self._wanted)
        return address

    def set_workers(self, workers: int) -> None:
        """Says how many workers there shall be.

        More are started as CPUs become free; fewer are reaped as the parameter server lets them go.
        """
        self._wanted = workers
        if self._server_run:
            self._crew.want(workers)

    async def failure(self) -> NoReturn:
        """Waits until a process fails for good. A worker that merely dies is replaced and does not count.

        Raises:
            AttemptLost: The parameter server is gone, or a worker for good, with its process or its link.
            AttemptFailed: A worker failed in a way that a replacement would repeat.
        """
        run = self._server_run
        assert run is not None  # noqa: S101 (called after start)
        ends: list[asyncio.Future[Any]] = [run, self._crew.failure]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if run.done():
            raise _server_lost(run.exception())
        raise _worker_lost(self._crew.failure.result())

    async def stop(self) -> None:
        """Ends the processes that are left and gives the CPUs back."""
        self._stopping = self._stopping or asyncio.create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        await self._crew.close()
        if self._server_run:
            self._server_run.cancel()
        if self._server:
            await self._server.dismiss()
        for worker in self._idle:
            await worker.dismiss()
        await self._reservation.give_back()

    async def _hire(self) -> NewWorkerLike | None:
        if worker := await self._reservation.hire():
            worker.begin(*self._work)
        return worker


async def _started(server: ServerLike, assignment: ps_pb.Assignment, secret: str) -> str:
    try:
        async with asyncio.timeout(_START_SECONDS):
            return await server.start(assignment, secret)
    except ProcessError as error:
        raise _not_started(error) from error
    except TimeoutError as error:
        late = f"the parameter server did not start within {_START_SECONDS:.0f} s"
        raise AttemptLost(late, cause="parameter_server") from error


def _not_started(error: ProcessError) -> AttemptFailed | AttemptLost:
    """What cannot be read now may be read later or elsewhere; any other error of the program would come again."""
    reason = f"the parameter server did not start: {error}"
    if error.cause is not None and not isinstance(error.cause, CheckpointError | OSError):
        return AttemptFailed(reason, error_lines=error.error_lines)
    return AttemptLost(reason, cause="parameter_server", error_lines=error.error_lines)


def _server_lost(error: BaseException | None) -> AttemptLost:
    lines = error.error_lines if isinstance(error, ProcessError) else ""
    why = str(error) if error else "it ended"
    return AttemptLost(f"the parameter server was lost: {why}", cause="parameter_server", error_lines=lines)


def _worker_lost(error: ProcessError) -> AttemptFailed | AttemptLost:
    """An error of the program would come again, the loss of a process or a link need not."""
    reason = f"a worker failed: {error}"
    if error.cause is not None and not isinstance(error.cause, ParameterServerLostError):
        return AttemptFailed(reason, error_lines=error.error_lines)
    return AttemptLost(reason, cause="worker", error_lines=error.error_lines)
