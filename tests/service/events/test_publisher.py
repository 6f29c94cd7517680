"""Event publisher: what happens is written first, and then reported once to every subscriber."""

import sqlite3
from collections.abc import Callable
from typing import NoReturn

import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from service.errors import ServiceError
from service.events.job_events import (
    AttemptResumed,
    CheckpointFailed,
    CheckpointWritten,
    HistoryExtended,
    JobDeleted,
    JobEvent,
    Notice,
    ProgressReported,
    StateChanged,
    WaitingExplained,
    WarningRaised,
    WorkerGone,
    WorkerJoined,
    WorkersChanged,
)
from service.events.publisher import EventPublisher
from service.stores.job_states import CANCELLED, QUEUED, STARTING
from service.stores.jobs import JobStore

SPEC = spec_pb.JobSpec(name="a", distribution=spec_pb.DistributionSpec(workers=1))
PROGRESS = jobs_pb.Progress(epoch=1)
POINT = jobs_pb.HistoryPoint(epoch=1, step=3)
WARNING = jobs_pb.JobWarning(kind=jobs_pb.WARNING_KIND_COST_EXPLODED, message="it is too high")

KEPT = {
    WorkerJoined("a", "worker-1 joined"): "worker-1 joined",
    WorkerGone("a", "worker-1 was lost"): "worker-1 was lost",
    Notice("a", "look"): "look",
    AttemptResumed("a", 2, 7): "attempt 2 goes on from the checkpoint of step 7",
    CheckpointFailed("a", "no room"): "no room",
}
OTHERS = [
    (HistoryExtended("a", [(PROGRESS, POINT, "epoch 1")], []), "epoch 1"),
    (WarningRaised("a", WARNING), "warning: it is too high"),
    (
        CheckpointWritten("a", jobs_pb.Checkpoint(step=7, epoch=2, size_bytes=1234), 0.5, 99.0),
        "checkpoint of step 7 in epoch 2: 1,234 bytes in 0.50 s",
    ),
]


class Listener:
    """A subscriber that knows what was written when it heard of an event."""

    def __init__(self, jobs: JobStore) -> None:
        self._jobs = jobs
        self.heard: list[JobEvent] = []
        self.written: list[int] = []

    def receive(self, event: JobEvent) -> None:
        self.heard.append(event)
        self.written.append(self._jobs.last_event("a"))


@pytest.fixture
def listener(jobs: JobStore) -> Listener:
    return Listener(jobs)


@pytest.fixture
def events(jobs: JobStore, listener: Listener) -> EventPublisher:
    """With a job called a, whose one event is that it was created."""
    jobs.create(SPEC, "", job_id="a")
    return EventPublisher(jobs, listener.receive)


def _full(*_: object, **__: object) -> NoReturn:
    raise sqlite3.OperationalError("database or disk is full")


@pytest.mark.parametrize(("event", "message"), [*KEPT.items(), *OTHERS])
def test_an_event_is_written_before_anybody_hears_of_it(
    events: EventPublisher, jobs: JobStore, listener: Listener, event: JobEvent, message: str
) -> None:
    """Once, and as a sentence."""
    events.publish(event)
    assert [each.message for each in jobs.events("a", 2)] == [message]
    assert (listener.heard, listener.written) == ([event], [2])


@pytest.mark.parametrize(
    "event",
    [ProgressReported("a", PROGRESS), WaitingExplained("a", "waits"), CheckpointFailed("a", "")],
)
def test_what_nobody_keeps_is_only_reported(
    events: EventPublisher, jobs: JobStore, listener: Listener, event: JobEvent
) -> None:
    """The event log grows by nothing."""
    events.publish(event)
    assert (listener.heard, jobs.last_event("a")) == ([event], 1)


def test_every_change_of_a_job_is_reported_with_what_was_before(
    events: EventPublisher, jobs: JobStore, listener: Listener
) -> None:
    """Its creation, its moves, another number of workers, and that it was deleted."""
    created = events.create_job(SPEC, "request", job_id="b")
    assert events.create_job(SPEC, "request") == created
    events.change_workers("b", 2, "2 workers")
    before = jobs.get("b")
    started = events.move_job("b", STARTING, "test", attempt=5)
    queued = events.move_job("b", QUEUED, "test", lost_cause="ray")
    cancelled = events.move_job("b", CANCELLED, "test")
    events.delete_job("b")
    assert listener.heard == [
        StateChanged("b", created, jobs_pb.Job()),
        WorkersChanged("b", 2),
        StateChanged("b", started, before),
        StateChanged("b", queued, started, "ray"),
        StateChanged("b", cancelled, queued),
        JobDeleted("b"),
    ]


@pytest.mark.parametrize(
    "act",
    [
        lambda events: events.move_job("a", STARTING, "test"),
        lambda events: events.change_workers("a", 2, "test"),
        lambda events: events.create_job(SPEC, ""),
        lambda events: events.publish(WorkerJoined("a", "test")),
        lambda events: events.publish(OTHERS[0][0]),
    ],
)
def test_what_cannot_be_written_is_not_reported(
    events: EventPublisher,
    jobs: JobStore,
    listener: Listener,
    monkeypatch: pytest.MonkeyPatch,
    act: Callable[[EventPublisher], object],
) -> None:
    """Whoever publishes it tries again, and it is reported once."""
    with monkeypatch.context() as patch:
        for name in ("move", "set_workers", "create", "append_event", "append_history"):
            patch.setattr(jobs, name, _full)
        with pytest.raises(sqlite3.OperationalError, match="full"):
            act(events)
    assert listener.heard == []
    act(events)
    assert len(listener.heard) == 1


def test_a_move_that_is_not_legal_is_not_reported(events: EventPublisher, listener: Listener) -> None:
    """Nor the deletion of a job that has not ended."""
    with pytest.raises(ServiceError):
        events.move_job("a", QUEUED, "test")
    with pytest.raises(ServiceError):
        events.delete_job("a")
    assert listener.heard == []


def test_an_event_of_best_effort_is_reported_and_logged_on_a_full_disk(
    events: EventPublisher,
    jobs: JobStore,
    listener: Listener,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One that tells of a full disk may itself find no room."""
    monkeypatch.setattr(jobs, "append_event", _full)
    event = Notice("a", "there is no room")
    events.publish_best_effort(event)
    assert listener.heard == [event]
    assert "job a: there is no room (database or disk is full)" in caplog.text
