"""Following a parameter server: its events are written once and in order, also when a disk is full."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1.metrics_pb2 import Metrics
from service.control.attempt_follower import AttemptFollower
from service.errors import AttemptFailed, AttemptLost
from service.events.job_events import JobEvent, StateChanged
from service.events.live_status import LiveStatus
from service.events.publisher import EventPublisher
from service.stores.job_states import STARTING
from service.stores.jobs import JobStore

TrainingEvent = ps_pb.TrainingEvent
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def _epoch(number: int) -> TrainingEvent:
    progress = jobs_pb.Progress(epoch=number, epochs=9, step=10 * number, training=Metrics(cost=1 / number))
    return TrainingEvent(epoch_end=ps_pb.EpochEnd(progress=progress, weights_sha256=f"digest-{number}"))


def _step(number: int) -> TrainingEvent:
    return TrainingEvent(step=jobs_pb.HistoryPoint(epoch=1, step=number, training=Metrics(cost=0.5)))


STORY = (
    TrainingEvent(first_weights_sha256="first"),
    TrainingEvent(arithmetic=jobs_pb.Arithmetic(cpu="a")),
    TrainingEvent(worker_joined="worker-1 joined"),
    TrainingEvent(step_core=spec_pb.STEP_CORE_PYTHON),
    TrainingEvent(
        core_changed=ps_pb.StepCoreChange(step_core=spec_pb.STEP_CORE_PYTHON, sentence="steps are made in Python: why")
    ),
    _step(1),
    _epoch(1),
    TrainingEvent(arithmetic=jobs_pb.Arithmetic(cpu="a")),
    TrainingEvent(worker_lost="worker-1 was lost"),
    TrainingEvent(step_core=spec_pb.STEP_CORE_NATIVE),
    _epoch(2),
    _step(20),
    TrainingEvent(worker_left="worker-2 left"),
    TrainingEvent(finished="all 2 epochs are done"),
)


class _LostError(grpc.aio.AioRpcError):
    def __init__(self) -> None:
        super().__init__(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "gone")


class FakeParameterServer:
    """Tells a story, at most `batch` events at a time, and is lost at every second question if it is to."""

    def __init__(self, story: Sequence[TrainingEvent], batch: int, *, breaks: bool = False) -> None:
        self._story = story
        self._batch = batch
        self._breaks = breaks
        self._questions = 0

    async def Follow(  # noqa: N802 (gRPC's name)
        self, request: ps_pb.FollowRequest, **_: object
    ) -> ps_pb.FollowResponse:
        self._questions += 1
        if self._breaks and self._questions % 2:
            raise _LostError
        events = self._story[request.seen : request.seen + self._batch]
        return ps_pb.FollowResponse(progress=jobs_pb.Progress(epochs=2), events=events)


class CountingParameterServer:
    """Takes some seconds for each answer, and counts what was asked for."""

    def __init__(self, seconds: Sequence[float]) -> None:
        self.now = 0.0
        self.statistics_at: list[float] = []
        self._seconds = iter(seconds)

    async def Follow(  # noqa: N802 (gRPC's name)
        self, request: ps_pb.FollowRequest, **_: object
    ) -> ps_pb.FollowResponse:
        told = ps_pb.FollowResponse(progress=jobs_pb.Progress(step=1))
        if request.statistics:
            self.statistics_at.append(self.now)
            told.statistics.workers_lost = len(self.statistics_at)
        seconds = next(self._seconds, None)
        if seconds is None:
            told.events.add(worker_joined="worker-1 joined")
            told.events.add(finished="done")
            return told
        self.now += seconds
        return told


class SilentParameterServer:
    """Never answers."""

    async def Follow(self, *_: object, **__: object) -> ps_pb.FollowResponse:  # noqa: N802 (gRPC's name)
        raise _LostError


@pytest.fixture(autouse=True)
def time_flies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses take no time."""
    for name in ("_RETRY_SECONDS", "_REWRITE_SECONDS", "_POLL_SECONDS"):
        monkeypatch.setattr(f"service.control.attempt_follower.{name}", 0)


@pytest.fixture
def job(jobs: JobStore) -> jobs_pb.Job:
    """A job whose processes are being started."""
    return jobs.move(jobs.create(spec_pb.JobSpec(name="a"), "").job_id, STARTING, "test")


@pytest.fixture
def follow(jobs: JobStore, job: jobs_pb.Job) -> Callable[..., str]:
    """Follows a parameter server to its end."""

    def follow(
        server: Any,
        epoch_ended: Callable[[ps_pb.EpochEnd], None] = lambda _: None,
        subscriber: Callable[[JobEvent], None] = lambda _: None,
    ) -> str:
        follower = AttemptFollower(jobs, EventPublisher(jobs, subscriber), job, lambda: NOW, epoch_ended)
        return asyncio.run(follower.run(server, ()))

    return follow


def _told(jobs: JobStore, job: jobs_pb.Job) -> list[str]:
    return [event.message.split(":")[0] for event in jobs.events(job.job_id, 3)]


EVENTS = [
    "running",
    "worker-1 joined",
    "steps are made in Python",
    "epoch 1 of 9",
    "worker-1 was lost",
    "epoch 2 of 9",
    "worker-2 left",
]


def test_that_the_job_runs_is_told_once(jobs: JobStore, job: jobs_pb.Job, follow: Callable[..., str]) -> None:
    """When it is in that state."""
    states: list[jobs_pb.JobState.ValueType] = []

    def receive(event: JobEvent) -> None:
        if isinstance(event, StateChanged):
            states.append(jobs.get(job.job_id).state)

    follow(FakeParameterServer(STORY, 2, breaks=False), subscriber=receive)
    assert states == [jobs_pb.JOB_STATE_RUNNING]


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 11])
@pytest.mark.parametrize("breaks", [False, True])
def test_everything_is_written_down_once_and_in_order(
    jobs: JobStore, job: jobs_pb.Job, follow: Callable[..., str], batch: int, breaks: bool
) -> None:
    """However it is cut into messages, and wherever the connection breaks."""
    assert follow(FakeParameterServer(STORY, batch, breaks=breaks)) == "all 2 epochs are done"
    assert _told(jobs, job) == EVENTS
    assert jobs.epoch_digests(job.job_id) == ["digest-1", "digest-2"]
    points, _ = jobs.history(job.job_id, jobs_pb.HISTORY_KIND_STEPS, None, 100)
    assert [(point.step, point.attempt) for point in points] == [(1, 1), (20, 1)]
    receipt = jobs.receipt(job.job_id)
    assert receipt is not None
    assert receipt.first_weights_sha256 == "first"
    assert [each.cpu for each in receipt.arithmetics] == ["a"]
    assert [event.step_core for event in jobs.events(job.job_id, 3) if event.step_core] == [spec_pb.STEP_CORE_PYTHON]
    assert receipt.step_cores == [spec_pb.STEP_CORE_NATIVE, spec_pb.STEP_CORE_PYTHON]


def test_what_cannot_be_written_is_written_later(
    jobs: JobStore, job: jobs_pb.Job, follow: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full at every second try costs nothing, and nothing is written twice."""
    tries = 0

    def sometimes(write: Callable[..., Any]) -> Callable[..., Any]:
        def tried(*arguments: Any, **options: Any) -> Any:
            nonlocal tries
            tries += 1
            if tries % 2:
                raise sqlite3.OperationalError("database or disk is full")
            return write(*arguments, **options)

        return tried

    for name in ("move", "append_event", "append_history", "save_receipt"):
        monkeypatch.setattr(jobs, name, sometimes(getattr(jobs, name)))
    follow(FakeParameterServer(STORY, 4))
    assert _told(jobs, job) == EVENTS
    assert jobs.epoch_digests(job.job_id) == ["digest-1", "digest-2"]


def test_a_failed_training_fails_the_attempt(follow: Callable[..., str]) -> None:
    """With the sentence of the parameter server."""
    with pytest.raises(AttemptFailed, match="it diverged"):
        follow(FakeParameterServer([TrainingEvent(failed="it diverged")], 1))


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (TrainingEvent(diverged="it ended"), jobs_pb.FAILURE_KIND_DETERMINISTIC),
        (TrainingEvent(failed="it ended"), jobs_pb.FAILURE_KIND_ENVIRONMENT),
    ],
)
def test_a_failure_says_whether_it_would_come_again(
    follow: Callable[..., str], end: ps_pb.TrainingEvent, kind: jobs_pb.FailureKind.ValueType
) -> None:
    """What the arithmetic of the job has ended will end so again; what broke around it need not."""
    with pytest.raises(AttemptFailed, match="it ended") as failed:
        follow(FakeParameterServer([end], 1))
    assert failed.value.kind == kind


def test_a_warning_is_kept_with_the_job_and_told_as_an_event(
    jobs: JobStore, job: jobs_pb.Job, follow: Callable[..., str]
) -> None:
    """Under its kind, so that programs need not read the sentence."""
    warning = jobs_pb.JobWarning(kind=jobs_pb.WARNING_KIND_COST_EXPLODED, step=20, message="it is too high")
    follow(FakeParameterServer([TrainingEvent(warning=warning), *STORY], 3))
    assert list(jobs.get(job.job_id).warnings) == [warning]
    (event,) = [event for event in jobs.recent_events(job.job_id, 100) if event.warning]
    assert (event.warning, event.message) == (warning.kind, "warning: it is too high")


def test_who_looks_at_epochs_can_end_the_attempt(jobs: JobStore, job: jobs_pb.Job, follow: Callable[..., str]) -> None:
    """After the epoch was written down."""

    def refuse(_: ps_pb.EpochEnd) -> None:
        raise AttemptFailed("not like this")

    with pytest.raises(AttemptFailed, match="not like this"):
        follow(FakeParameterServer(STORY, 11), refuse)
    assert jobs.epoch_digests(job.job_id) == ["digest-1"]


def test_a_parameter_server_that_stays_silent_is_lost(
    follow: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while; the loss says what was lost."""
    monkeypatch.setattr("service.control.attempt_follower._SILENCE_SECONDS", 0.01)
    with pytest.raises(AttemptLost, match="the parameter server was lost: gone") as lost:
        follow(SilentParameterServer())
    assert lost.value.cause == "parameter_server"


async def test_statistics_are_asked_for_once_a_second(
    jobs: JobStore, job: jobs_pb.Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At first, and then when a second has passed since it came; the newest is known meanwhile."""
    server, live = CountingParameterServer([0.25] * 10), LiveStatus(lambda: 0.0)
    monkeypatch.setattr("service.control.attempt_follower.time", SimpleNamespace(monotonic=lambda: server.now))
    follower = AttemptFollower(jobs, EventPublisher(jobs, live.receive), job, lambda: NOW, lambda _: None)
    await follower.run(server, ())  # type: ignore[arg-type]
    assert server.statistics_at == [0.0, 1.25, 2.5]
    assert live.snapshot()[job.job_id].statistics.workers_lost == 3
