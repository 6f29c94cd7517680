"""Whatever is killed, stopped, filled or damaged, a job loses nothing; `make robustness` does each of it many times."""

from collections.abc import Iterator

import pytest

from tests.harness.campaign import Runner, what_is_left
from tests.harness.invariants import References
from tests.harness.scenarios import SCENARIOS, Scenario
from tests.harness.service import Service
from tests.harness.submissions import reference_of, weather

pytestmark = pytest.mark.faults

# Draws every optimizer, both batch sizes, all numbers of workers and all transports, and few undisturbed jobs.
SEED = 58
# Tests of their own do these: test_job_life, test_daemon and test_ray_loss.
ELSEWHERE = {"pause", "scale", "drain", "drain-twice", "raylet", "gcs", "cluster-process"}
HERE = [scenario for scenario in SCENARIOS if scenario.name not in ELSEWHERE]
SPARING = [scenario for scenario in HERE if scenario.spares_others]
SWEEPING = [scenario for scenario in HERE if not scenario.spares_others]


@pytest.fixture(scope="module")
def references() -> References:
    """Each undisturbed job is run once."""
    return References()


@pytest.fixture(scope="module")
def lasting_service(temporary_folder: None) -> Iterator[Service]:
    """One whose daemon lives as long as the tests, and has a job that nobody disturbs."""
    with Service() as service:
        yield service
        assert what_is_left(service) == []


@pytest.fixture(scope="module")
def mortal_service(temporary_folder: None) -> Iterator[Service]:
    """One whose daemon, or Ray, is killed by each test, and started again."""
    with Service() as service:
        yield service
        assert what_is_left(service) == []


@pytest.mark.parametrize("scenario", SPARING, ids=lambda scenario: scenario.name)
def test_a_fault_of_one_job_costs_nobody_anything(
    lasting_service: Service, references: References, scenario: Scenario
) -> None:
    """The job ends by itself as the undisturbed one did, bit for bit; another one goes on; nothing stays behind."""
    result = Runner(lasting_service, scenario, references).run(SEED)
    assert result.holds, (result, lasting_service.log)
    assert result.faults


def test_jobs_submitted_while_the_service_is_killed_are_neither_lost_nor_doubled(mortal_service: Service) -> None:
    """Ten clients at once: what was acknowledged is there, each request made one job, and all end as they should."""
    storm = weather(mortal_service, reference_of(mortal_service), SEED, clients=10)
    assert storm.broken == []


@pytest.mark.parametrize("scenario", SWEEPING, ids=lambda scenario: scenario.name)
def test_a_fault_of_everything_costs_no_job_anything(
    mortal_service: Service, references: References, scenario: Scenario
) -> None:
    """The service and Ray come back, and the job ends as the undisturbed one did, bit for bit."""
    result = Runner(mortal_service, scenario, references).run(SEED)
    assert result.holds, (result, mortal_service.log)
    assert result.faults
