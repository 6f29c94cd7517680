"""Metrics of events: what happens to jobs is counted, waits and recoveries are measured."""

import pytest
from prometheus_client import CollectorRegistry

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from service.events.job_events import CheckpointFailed, CheckpointWritten, StateChanged
from service.metrics.event_metrics import EventMetrics
from service.metrics.instruments import Instruments
from service.stores.job_states import CANCELLED, FAILED, PAUSED, QUEUED, RUNNING, STARTING, SUCCEEDED, State


class Clock:
    """Seconds that pass when a test says so."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics(registry: CollectorRegistry, clock: Clock) -> EventMetrics:
    return EventMetrics(Instruments(registry), clock)


def _move(metrics: EventMetrics, state: State, lost_cause: str = "", job_id: str = "a") -> None:
    metrics.receive(StateChanged(job_id, jobs_pb.Job(job_id=job_id, state=state), jobs_pb.Job(), lost_cause))


def _recovered(registry: CollectorRegistry, cause: str) -> tuple[float | None, float | None]:
    names = ("nablad_recovery_seconds_count", "nablad_recovery_seconds_sum")
    count, seconds = (registry.get_sample_value(name, {"cause": cause}) for name in names)
    return count, seconds


def test_a_recovery_lasts_from_the_first_loss_to_the_next_run(
    metrics: EventMetrics, registry: CollectorRegistry, clock: Clock
) -> None:
    """Attempts that are lost before they run are part of it; its cause is that of the first loss."""
    _move(metrics, QUEUED, "worker")
    clock.seconds = 3
    _move(metrics, STARTING)
    _move(metrics, QUEUED, "ray")
    clock.seconds = 5
    _move(metrics, RUNNING)
    _move(metrics, RUNNING)
    assert _recovered(registry, "worker") == (1, 5)
    assert _recovered(registry, "ray") == (0, 0)
    lost = [registry.get_sample_value("nablad_attempts_lost_total", {"cause": cause}) for cause in ("worker", "ray")]
    assert lost == [1, 1]


def test_a_loss_that_nothing_follows_is_counted_and_not_recovered_from(
    metrics: EventMetrics, registry: CollectorRegistry
) -> None:
    """The job has failed; tried again, it is no recovery."""
    _move(metrics, FAILED, "worker")
    _move(metrics, RUNNING)
    assert registry.get_sample_value("nablad_attempts_lost_total", {"cause": "worker"}) == 1
    assert _recovered(registry, "worker") == (0, 0)


@pytest.mark.parametrize("state", [SUCCEEDED, CANCELLED, PAUSED])
def test_a_job_that_ends_or_pauses_in_between_has_not_recovered(
    metrics: EventMetrics, registry: CollectorRegistry, state: State
) -> None:
    """When it runs again later, that is no recovery; and a first run is none either."""
    _move(metrics, QUEUED, "worker")
    _move(metrics, state)
    _move(metrics, RUNNING)
    _move(metrics, RUNNING, job_id="b")
    assert _recovered(registry, "worker") == (0, 0)


def test_a_job_that_is_paused_because_of_a_loss_is_set_aside(
    metrics: EventMetrics, registry: CollectorRegistry
) -> None:
    """One that a client pauses is not."""
    _move(metrics, PAUSED, "service")
    _move(metrics, PAUSED)
    assert registry.get_sample_value("nablad_jobs_set_aside_total") == 1


@pytest.mark.parametrize(("queued", "waited"), [(100, 60), (160, 0), (1000, 0)])
def test_a_wait_in_the_queue_is_never_negative(
    metrics: EventMetrics, registry: CollectorRegistry, queued: int, waited: float
) -> None:
    """Also when the time of day was set back: Prometheus would take a sum that falls for a restart."""
    job = jobs_pb.Job(state=STARTING, spec=spec_pb.JobSpec(priority=7), update_time={"seconds": 160})
    metrics.receive(StateChanged("a", job, jobs_pb.Job(state=QUEUED, update_time={"seconds": queued})))
    assert registry.get_sample_value("nablad_queue_wait_seconds_sum", {"priority": "high"}) == waited
    assert registry.get_sample_value("nablad_attempts_total") == 1


def test_checkpoints_are_counted_and_measured(metrics: EventMetrics, registry: CollectorRegistry) -> None:
    """Those that could not be written, too."""
    metrics.receive(CheckpointWritten("a", jobs_pb.Checkpoint(size_bytes=1000), 0.5, 99.0))
    metrics.receive(CheckpointFailed("a", "no room"))
    metrics.receive(CheckpointFailed("a", ""))
    names = ("checkpoints_total", "checkpoint_bytes_total", "checkpoint_seconds_sum", "checkpoint_failures_total")
    assert [registry.get_sample_value(f"nablad_{name}") for name in names] == [1, 1000, 0.5, 2]
