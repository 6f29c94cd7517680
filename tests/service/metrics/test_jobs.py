"""Series of jobs: all of the table, from the start, in Prometheus's format."""

from collections.abc import Callable

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1.metrics_pb2 import Metrics
from service.events.live_status import JobStatus
from service.metrics.jobs import JobSeries
from service.metrics.table import JOB_METRICS
from workers.transport.tickets import Rejection

BY_LABEL = {
    ("nablad_job_worker_seconds_total", "activity"): {"gathering", "computing", "waiting", "exchanging"},
    ("nablad_job_server_seconds_total", "activity"): {
        "waiting", "receiving", "inspecting", "reducing", "updating", "dealing", "booking",
    },
    ("nablad_job_transport_workers", "transport"): {"shared", "inline"},
    ("nablad_job_core_steps_total", "core"): {"native", "python"},
    ("nablad_job_refused_results_total", "reason"): {rejection.name.lower() for rejection in Rejection},
}  # fmt: skip


def _samples(live: JobStatus, job_id: str = "j") -> list[Sample]:
    text = "".join(JobSeries().lines({job_id: live}))
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


@pytest.fixture
def sample() -> Callable[..., float | None]:
    """The value of a series of the only job."""

    def get(live: JobStatus, name: str, **labels: str) -> float | None:
        found = [s.value for s in _samples(live) if (s.name, s.labels) == (name, {"job_id": "j"} | labels)]
        assert len(found) < 2
        return found[0] if found else None

    return get


Get = Callable[..., float | None]


@pytest.mark.parametrize(("name", "label", "values"), [(*key, values) for key, values in BY_LABEL.items()])
def test_what_is_counted_by_a_label_is_there_from_the_start(
    sample: Get, name: str, label: str, values: set[str]
) -> None:
    """Before the first report, so that a first count shows as an increase."""
    assert {sample(JobStatus(), name, **{label: value}) for value in values} == {0}
    assert len([s for s in _samples(JobStatus()) if s.name == name]) == len(values)


def test_every_metric_of_the_table_is_written_with_its_labels(live_job: JobStatus) -> None:
    """Each with at least one sample once everything is known, and nothing else."""
    text = "".join(JobSeries().lines({"j": live_job}))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    # The parser's names of counters are without the suffix.
    assert families.keys() == {metric.name.removesuffix("_total") for metric in JOB_METRICS}
    for metric in JOB_METRICS:
        family = families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.type, metric.help)
        assert family.samples, metric.name
        for found in family.samples:
            assert found.labels.keys() - {"le", "quantile"} == set(metric.labels)


def test_reported_statistics_are_scraped(sample: Get, live_job: JobStatus) -> None:
    """Statistics of layers, workers, processes and phases."""
    assert sample(live_job, "nablad_job_layer_weight_norm", layer="1") == 2
    assert sample(live_job, "nablad_job_worker_lag_seconds_total", worker="worker-1") == 0.5
    for process in ("parameter_server", "worker-1"):
        assert sample(live_job, "nablad_job_process_cpu_seconds_total", process=process) == 3.5
    assert sample(live_job, "nablad_job_step_phase_seconds", phase="compute", quantile="0.9") == 0.5
    assert sample(live_job, "nablad_job_step_phase_seconds_count", phase="compute") == 8
    assert sample(live_job, "nablad_job_step") == 108


def test_counters_count_from_the_beginning_of_the_attempt(sample: Get, live_job: JobStatus) -> None:
    """One that fell back to a checkpoint would look as if it had begun anew, and count what was before once more."""
    assert sample(live_job, "nablad_job_steps_total") == 8
    assert sample(live_job, "nablad_job_samples_total") == 80


def test_what_is_not_known_yet_has_no_series(sample: Get) -> None:
    """A cost of 0 would be a lie."""
    assert sample(JobStatus(), "nablad_job_training_cost") is None
    assert sample(JobStatus(), "nablad_job_checkpoint_interval_seconds") is None
    assert sample(JobStatus(jobs_pb.Progress(training=Metrics(cost=0.25))), "nablad_job_training_cost") == 0.25


def test_step_durations_are_a_histogram(sample: Get, live_job: JobStatus) -> None:
    """Buckets are cumulative, the last one holds all."""
    counts = [sample(live_job, "nablad_job_step_seconds_bucket", le=bound) for bound in ("0.1", "1.0", "+Inf")]
    assert counts == [5, 7, 8]
    assert (sample(live_job, "nablad_job_step_seconds_count"), sample(live_job, "nablad_job_step_seconds_sum")) == (
        8,
        3,
    )


def test_a_cost_that_is_no_number_is_written_as_prometheus_reads_it(sample: Get) -> None:
    """An alert looks for it. Prometheus reads values as Go's ParseFloat does, which takes any case."""
    text = "".join(JobSeries().lines({"j": JobStatus(jobs_pb.Progress(training=Metrics(cost=float("nan"))))}))
    assert 'nablad_job_training_cost{job_id="j"} nan\n' in text
    text = "".join(JobSeries().lines({"j": JobStatus(jobs_pb.Progress(training=Metrics(cost=float("inf"))))}))
    assert 'nablad_job_training_cost{job_id="j"} inf\n' in text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e-300, 10**18])
def test_openmetrics_takes_every_value(value: float) -> None:
    """Its grammar has them in any case, and exponents."""
    live = JobStatus(jobs_pb.Progress(training=Metrics(cost=value)))
    text = "".join(JobSeries().lines({"j": live}, is_openmetrics=True)) + "# EOF\n"
    found = [
        s.value for family in parse_openmetrics(text) for s in family.samples if s.name == "nablad_job_training_cost"
    ]
    assert repr(found) == repr([float(value)])


def test_labels_may_hold_anything() -> None:
    """A worker chooses no name, but if it did: quotes, backslashes, new lines and percent signs stay in the value."""
    name = 'a"b\\c\nd%r%%'
    live = JobStatus(statistics=ps_pb.AttemptStatistics(workers=[ps_pb.WorkerStatistics(worker_id=name, results=1)]))
    found = [s.labels["worker"] for s in _samples(live) if s.name == "nablad_job_worker_results_total"]
    assert found == [name]


def test_a_job_that_is_gone_leaves_no_series_and_one_that_changed_no_old_values() -> None:
    """Labels are kept between scrapes, values are not."""
    series = JobSeries()
    first = "".join(series.lines({"a": JobStatus(attempt=1), "b": JobStatus()}))
    second = "".join(series.lines({"a": JobStatus(attempt=2)}))
    assert 'nablad_job_attempt{job_id="a"} 1\n' in first
    assert 'nablad_job_attempt{job_id="a"} 2\n' in second
    assert 'job_id="b"' not in second


def _live(step: int, workers: int, cost: float | None = None) -> JobStatus:
    statistics = [ps_pb.WorkerStatistics(worker_id=f"w{n}", results=10 * step + n) for n in range(workers)]
    return JobStatus(
        jobs_pb.Progress(step=step, training=Metrics(cost=cost)), ps_pb.AttemptStatistics(workers=statistics)
    )


def test_each_job_keeps_its_own_values() -> None:
    """Other jobs may have any shape, and may come and go between two scrapes."""
    series = JobSeries()
    for jobs in (
        {"a": _live(1, 0), "b": _live(2, 2, 0.5), "c": _live(3, 1, 0.25)},
        {"b": _live(4, 3, 0.125), "c": _live(5, 1), "d": _live(6, 2)},
    ):
        written = "".join(series.lines(jobs)).splitlines()
        alone = {
            line for job_id, live in jobs.items() for line in "".join(JobSeries().lines({job_id: live})).splitlines()
        }
        assert len(written) == len(set(written))
        assert set(written) == alone
    assert all(templates.keys() == {"b", "c", "d"} for templates in series._templates.values())
