"""Job processes on fake processes: the order of their starts, and the meaning of their ends."""

import asyncio

import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.image import CheckpointError
from service.cluster.errors import ProcessError
from service.cluster.job_processes import JobProcesses
from service.errors import AttemptFailed, AttemptLost
from workers.transport.session import ParameterServerLostError, RejectedError

ASSIGNMENT = ps_pb.Assignment(
    spec=spec_pb.JobSpec(model=spec_pb.ModelSpec(layers=[2, 2], dtype=spec_pb.D_TYPE_FLOAT32, bias=True))
)


class FakeProcess:
    """A parameter server or a worker."""

    def __init__(self) -> None:
        self.ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.work: tuple[str, str] | None = None
        self.stopped = False

    async def start(self, assignment: ps_pb.Assignment, secret: str) -> str:
        return await self.ready

    def start_work(self, address: str, secret: str, message_bytes: int) -> None:
        self.work = (address, secret)

    async def run(self) -> None:
        await self.end

    async def stop(self) -> None:
        self.stopped = True


class FakeReservation:
    """Reservation that starts fake processes."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.server = FakeProcess()
        self.started: list[FakeProcess] = []
        self.released = 0

    async def start_server(self) -> FakeProcess:
        return self.server

    def start_worker(self) -> FakeProcess:
        self.workers -= 1
        self.started.append(FakeProcess())
        return self.started[-1]

    async def add_worker(self) -> FakeProcess | None:
        self.started.append(FakeProcess())
        return self.started[-1]

    async def release(self) -> None:
        self.released += 1


async def _until(reservation: FakeReservation, workers: int) -> None:
    async with asyncio.timeout(60):
        while len(reservation.started) < workers:  # noqa: ASYNC110 (there is no event)
            await asyncio.sleep(0)


async def _started(reservation: FakeReservation) -> JobProcesses:
    processes = JobProcesses(reservation)
    reservation.server.ready.set_result("address")
    assert await processes.start(ASSIGNMENT, "secret") == "address"
    return processes


async def test_workers_start_to_work_when_the_parameter_server_listens() -> None:
    """Their processes start before; a worker that is added later works for the same parameter server."""
    reservation = FakeReservation(2)
    processes = JobProcesses(reservation)
    starting = asyncio.create_task(processes.start(ASSIGNMENT, "secret"))
    await _until(reservation, 2)
    assert [worker.work for worker in reservation.started] == [None, None]
    reservation.server.ready.set_result("address")
    await starting
    await processes.scale_workers(3)
    await _until(reservation, 3)
    assert [worker.work for worker in reservation.started] == [("address", "secret")] * 3
    await processes.stop()


async def test_a_stop_leaves_no_process() -> None:
    """It may come before the start, during it, and afterwards; a second stop changes nothing."""
    reservation = FakeReservation(2)
    await JobProcesses(reservation).stop()
    assert reservation.released == 1

    reservation = FakeReservation(2)
    processes = JobProcesses(reservation)
    starting = asyncio.create_task(processes.start(ASSIGNMENT, "secret"))
    await _until(reservation, 2)
    starting.cancel()
    await asyncio.wait([starting])
    await asyncio.gather(processes.stop(), processes.stop())
    assert all(process.stopped for process in (reservation.server, *reservation.started))

    reservation = FakeReservation(2)
    processes = await _started(reservation)
    await processes.stop()
    assert all(process.stopped for process in (reservation.server, *reservation.started))
    assert reservation.released == 1


@pytest.mark.parametrize(
    ("cause", "outcome"),
    [
        (None, AttemptLost),
        (CheckpointError("torn"), AttemptLost),
        (OSError("no such host"), AttemptLost),
        (ValueError("no such layer"), AttemptFailed),
        (MemoryError(), AttemptFailed),
    ],
)
async def test_a_parameter_server_that_does_not_start_is_a_loss_or_a_failure(
    cause: Exception | None, outcome: type[Exception]
) -> None:
    """An error that may not come again is a loss; an error of the job is a failure."""
    reservation = FakeReservation(1)
    processes = JobProcesses(reservation)
    reservation.server.ready.set_exception(ProcessError("oh", cause, "last\nlines"))
    with pytest.raises(outcome, match="the parameter server did not start: oh") as ended:
        await processes.start(ASSIGNMENT, "secret")
    assert ended.value.error_lines == "last\nlines"  # type: ignore[attr-defined] (both have them)
    await processes.stop()


@pytest.mark.parametrize(
    ("cause", "outcome"),
    [
        (None, AttemptLost),
        (ParameterServerLostError("cut off"), AttemptLost),
        (RejectedError("cannot share memory"), AttemptFailed),
        (ValueError("not the data set"), AttemptFailed),
    ],
)
async def test_a_worker_that_is_gone_for_good_is_a_loss_or_a_failure(
    cause: Exception | None, outcome: type[Exception]
) -> None:
    """The loss of a process or a connection is a loss; an error that another worker would repeat is a failure."""
    reservation = FakeReservation(2)
    processes = await _started(reservation)
    reservation.started[1].end.set_exception(ProcessError("oh", cause, "last"))
    with pytest.raises(outcome, match="a worker failed: oh") as ended:
        await processes.wait_for_failure()
    assert ended.value.error_lines == "last"  # type: ignore[attr-defined] (both have them)
    assert getattr(ended.value, "cause", "worker") == "worker"
    await processes.stop()


async def test_a_lost_parameter_server_is_a_loss() -> None:
    """The errors of its workers, which follow from it, do not matter."""
    reservation = FakeReservation(1)
    processes = await _started(reservation)
    reservation.started[0].end.set_exception(ProcessError("cut off", ParameterServerLostError(), ""))
    reservation.server.end.set_exception(ProcessError("killed", None, ""))
    with pytest.raises(AttemptLost, match="the parameter server was lost: killed") as lost:
        await processes.wait_for_failure()
    assert lost.value.cause == "parameter_server"
    await processes.stop()
