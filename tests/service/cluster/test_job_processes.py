"""A fleet on processes of the test's making: its order, and what the end of a process means."""

import asyncio

import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.image import CheckpointError
from service.cluster.errors import ProcessError
from service.cluster.job_processes import JobProcesses
from service.errors import AttemptFailed, AttemptLost
from workers.worker import ParameterServerLostError, RejectedError

ASSIGNMENT = ps_pb.Assignment(
    spec=spec_pb.JobSpec(model=spec_pb.ModelSpec(layers=[2, 2], dtype=spec_pb.D_TYPE_FLOAT32, bias=True))
)


class FakeProcess:
    """A parameter server or a worker."""

    def __init__(self) -> None:
        self.ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.begun: tuple[str, str] | None = None
        self.dismissed = False

    async def start(self, assignment: ps_pb.Assignment, secret: str) -> str:
        return await self.ready

    def begin(self, address: str, secret: str, message_bytes: int) -> None:
        self.begun = (address, secret)

    async def run(self) -> None:
        await self.end

    async def dismiss(self) -> None:
        self.dismissed = True


class FakeReservation:
    """CPUs for some workers."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.server = FakeProcess()
        self.crew: list[FakeProcess] = []
        self.given_back = 0

    async def start_server(self) -> FakeProcess:
        return self.server

    def start_worker(self) -> FakeProcess:
        self.workers -= 1
        self.crew.append(FakeProcess())
        return self.crew[-1]

    async def hire(self) -> FakeProcess | None:
        self.crew.append(FakeProcess())
        return self.crew[-1]

    async def give_back(self) -> None:
        self.given_back += 1


async def _until(reservation: FakeReservation, workers: int) -> None:
    async with asyncio.timeout(10):
        while len(reservation.crew) < workers:  # noqa: ASYNC110 (there is no event)
            await asyncio.sleep(0)


async def _started(reservation: FakeReservation) -> JobProcesses:
    fleet = JobProcesses(reservation)
    reservation.server.ready.set_result("address")
    assert await fleet.start(ASSIGNMENT, "secret") == "address"
    return fleet


async def test_workers_begin_when_the_parameter_server_listens() -> None:
    """Their processes are there before; one that is added later works for the same one."""
    reservation = FakeReservation(2)
    fleet = JobProcesses(reservation)
    starting = asyncio.create_task(fleet.start(ASSIGNMENT, "secret"))
    await _until(reservation, 2)
    assert [worker.begun for worker in reservation.crew] == [None, None]
    reservation.server.ready.set_result("address")
    await starting
    fleet.set_workers(3)
    await _until(reservation, 3)
    assert [worker.begun for worker in reservation.crew] == [("address", "secret")] * 3
    await fleet.stop()


async def test_a_fleet_that_is_stopped_leaves_no_process() -> None:
    """Before it was started, while it starts, and afterwards; stopping twice is stopping once."""
    reservation = FakeReservation(2)
    await JobProcesses(reservation).stop()
    assert reservation.given_back == 1

    reservation = FakeReservation(2)
    fleet = JobProcesses(reservation)
    starting = asyncio.create_task(fleet.start(ASSIGNMENT, "secret"))
    await _until(reservation, 2)
    starting.cancel()
    await asyncio.wait([starting])
    await asyncio.gather(fleet.stop(), fleet.stop())
    assert all(process.dismissed for process in (reservation.server, *reservation.crew))

    reservation = FakeReservation(2)
    fleet = await _started(reservation)
    await fleet.stop()
    assert all(process.dismissed for process in (reservation.server, *reservation.crew))
    assert reservation.given_back == 1


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
async def test_why_a_parameter_server_does_not_start(cause: Exception | None, outcome: type[Exception]) -> None:
    """What may be different the next time is a loss; what its program says of the job is a failure."""
    reservation = FakeReservation(1)
    fleet = JobProcesses(reservation)
    reservation.server.ready.set_exception(ProcessError("oh", cause, "last\nlines"))
    with pytest.raises(outcome, match="the parameter server did not start: oh") as ended:
        await fleet.start(ASSIGNMENT, "secret")
    assert ended.value.error_lines == "last\nlines"  # type: ignore[attr-defined] (both have them)
    await fleet.stop()


@pytest.mark.parametrize(
    ("cause", "outcome"),
    [
        (None, AttemptLost),
        (ParameterServerLostError("cut off"), AttemptLost),
        (RejectedError("cannot share memory"), AttemptFailed),
        (ValueError("not the data set"), AttemptFailed),
    ],
)
async def test_why_a_worker_is_gone_for_good(cause: Exception | None, outcome: type[Exception]) -> None:
    """The loss of a process or a link is a loss; what another worker would run into again is a failure."""
    reservation = FakeReservation(2)
    fleet = await _started(reservation)
    reservation.crew[1].end.set_exception(ProcessError("oh", cause, "last"))
    with pytest.raises(outcome, match="a worker failed: oh") as ended:
        await fleet.failure()
    assert ended.value.error_lines == "last"  # type: ignore[attr-defined] (both have them)
    assert getattr(ended.value, "cause", "worker") == "worker"
    await fleet.stop()


async def test_a_lost_parameter_server_is_a_loss() -> None:
    """Whatever becomes of its workers."""
    reservation = FakeReservation(1)
    fleet = await _started(reservation)
    reservation.crew[0].end.set_exception(ProcessError("cut off", ParameterServerLostError(), ""))
    reservation.server.end.set_exception(ProcessError("killed", None, ""))
    with pytest.raises(AttemptLost, match="the parameter server was lost: killed") as lost:
        await fleet.failure()
    assert lost.value.cause == "parameter_server"
    await fleet.stop()
