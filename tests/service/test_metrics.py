"""The metrics of jobs: every series from the start, and the values that the parameter server told."""

from collections.abc import Callable, Iterator
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.live import LiveJob
from service.metrics import METRICS, JobCollector, MetricsServer
from service.parameter_server.telemetry import Totals
from workers.tickets import Refusal

BY_ACTIVITY = {
    "nablad_job_worker_seconds_total": {"gathering", "computing", "waiting", "exchanging"},
    "nablad_job_server_seconds_total": {
        "waiting", "receiving", "inspecting", "reducing", "updating", "dealing", "booking",
    },
}  # fmt: skip


@pytest.fixture
def sample() -> Callable[..., float | None]:
    """The value of a series of the only job."""

    def get(live: LiveJob, name: str, **labels: str) -> float | None:
        registry = CollectorRegistry()
        registry.register(JobCollector(lambda: ({jobs_pb.JOB_STATE_RUNNING: 1}, {"j": live})))
        return registry.get_sample_value(name, {"job_id": "j"} | labels)

    return get


Sample = Callable[..., float | None]


@pytest.mark.parametrize(("name", "activities"), BY_ACTIVITY.items())
def test_every_activity_is_counted_from_the_start(sample: Sample, name: str, activities: set[str]) -> None:
    """Before anything is told, so that a first count shows as an increase."""
    assert {sample(LiveJob(), name, activity=activity) for activity in activities} == {0}


def test_transports_refusals_and_evaluations_are_counted_from_the_start(sample: Sample) -> None:
    """Before there is a worker."""
    for transport in ("shared", "inline"):
        assert sample(LiveJob(), "nablad_job_transport_workers", transport=transport) == 0
    for refusal in Refusal:
        assert sample(LiveJob(), "nablad_job_refused_results_total", reason=refusal.name.lower()) == 0
    for name in (
        "nablad_job_evaluation_seconds_total",
        "nablad_job_evaluations_total",
        "nablad_job_workers_lost_total",
    ):
        assert sample(LiveJob(), name) == 0


def test_what_the_parameter_server_tells_is_what_is_scraped(sample: Sample) -> None:
    """Its totals of seconds by activity, workers by transport, evaluations and lost workers."""
    totals = Totals()
    totals.workers_lost = 3
    totals.add_evaluation(1.5)
    totals.add_evaluation(2.0)
    totals.add_worker_seconds([1, 2, 3, 4])
    live = LiveJob(telemetry=totals.message([[10, 20, 30, 40]], {"updating": 7.0}, ["shared", "inline", "shared"]))
    seconds = [sample(live, "nablad_job_worker_seconds_total", activity=a) for a in ("gathering", "exchanging")]
    assert seconds == [11, 44]
    assert sample(live, "nablad_job_server_seconds_total", activity="updating") == 7
    assert sample(live, "nablad_job_transport_workers", transport="shared") == 2
    assert sample(live, "nablad_job_transport_workers", transport="inline") == 1
    assert sample(live, "nablad_job_evaluations_total") == 2
    assert sample(live, "nablad_job_evaluation_seconds_total") == 3.5
    assert sample(live, "nablad_job_workers_lost_total") == 3


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_what_cannot_be_a_duration_is_not_counted(sample: Sample, seconds: float) -> None:
    """A worker may say what it likes: counters never fall, and stay numbers."""
    totals = Totals()
    totals.add_worker_seconds([seconds, 2, seconds, 4])
    live = LiveJob(telemetry=totals.message([[1, seconds, 1, seconds]], {}, []))
    activities = ("gathering", "computing", "waiting", "exchanging")
    assert [sample(live, "nablad_job_worker_seconds_total", activity=activity) for activity in activities] == [
        1,
        2,
        1,
        4,
    ]


def test_what_is_not_known_yet_has_no_series(sample: Sample) -> None:
    """A cost of 0 would be a lie."""
    assert sample(LiveJob(), "nablad_job_training_cost") is None
    assert sample(LiveJob(jobs_pb.Progress(training_cost=0.25)), "nablad_job_training_cost") == 0.25


def test_step_durations_are_a_histogram(sample: Sample) -> None:
    """Buckets are cumulative, the last one holds all."""
    told = ps_pb.Telemetry(step_seconds_bounds=[0.1, 1.0], step_seconds_counts=[5, 2, 1], step_seconds_sum=3.0)
    live = LiveJob(telemetry=told)
    counts = [sample(live, "nablad_job_step_seconds_bucket", le=bound) for bound in ("0.1", "1.0", "+Inf")]
    assert counts == [5, 7, 8]
    assert sample(live, "nablad_job_step_seconds_sum") == 3


@pytest.fixture
def page() -> Iterator[str]:
    """What is scraped while one job runs."""
    registry = CollectorRegistry()
    registry.register(JobCollector(lambda: ({}, {"j": LiveJob()})))
    server = MetricsServer(registry, "127.0.0.1", 0)
    with urlopen(f"http://{server.address}/metrics") as response:
        yield response.read().decode()
    server.close()


def test_names_and_labels_are_those_of_the_conventions(page: str) -> None:
    """One prefix, a help text each, and the job's label is job_id: Prometheus gives `job` a meaning of its own."""
    families = {family.name: family for family in text_string_to_metric_families(page)}
    assert {metric.name for metric in METRICS} <= families.keys()
    for name, family in families.items():
        assert name.startswith("nablad_")
        assert family.documentation.endswith(".")
        assert not any("job" in sample.labels for sample in family.samples)
