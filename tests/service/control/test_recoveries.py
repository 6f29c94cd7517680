"""Recoveries: how long jobs are without an attempt that runs."""

import pytest
from prometheus_client import CollectorRegistry

from service.control.recoveries import Recoveries
from service.metrics.instruments import Instruments


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
def recoveries(registry: CollectorRegistry, clock: Clock) -> Recoveries:
    return Recoveries(Instruments(registry), clock)


def _recovered(registry: CollectorRegistry, cause: str) -> tuple[float | None, float | None]:
    names = ("nablad_recovery_seconds_count", "nablad_recovery_seconds_sum")
    count, seconds = (registry.get_sample_value(name, {"cause": cause}) for name in names)
    return count, seconds


def test_it_lasts_from_the_first_loss_to_the_next_run(
    recoveries: Recoveries, registry: CollectorRegistry, clock: Clock
) -> None:
    """Attempts that are lost before they run are part of it; its cause is that of the first loss."""
    recoveries.lost("a", "worker")
    clock.seconds = 3
    recoveries.lost("a", "ray")
    clock.seconds = 5
    recoveries.running("a")
    recoveries.running("a")
    assert _recovered(registry, "worker") == (1, 5)
    assert _recovered(registry, "ray") == (0, 0)
    lost = [registry.get_sample_value("nablad_attempts_lost_total", {"cause": cause}) for cause in ("worker", "ray")]
    assert lost == [1, 1]


def test_a_loss_that_nothing_follows_is_counted_and_not_recovered_from(
    recoveries: Recoveries, registry: CollectorRegistry
) -> None:
    """The job has failed; tried again, it is no recovery."""
    recoveries.lost("a", "worker", another_follows=False)
    recoveries.running("a")
    assert registry.get_sample_value("nablad_attempts_lost_total", {"cause": "worker"}) == 1
    assert _recovered(registry, "worker") == (0, 0)


def test_a_job_that_ends_or_pauses_in_between_has_not_recovered(
    recoveries: Recoveries, registry: CollectorRegistry
) -> None:
    """When it runs again later, that is no recovery; and a first run is none either."""
    recoveries.lost("a", "worker")
    recoveries.forget("a")
    recoveries.running("a")
    recoveries.running("b")
    assert _recovered(registry, "worker") == (0, 0)
