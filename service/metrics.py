"""What Prometheus scrapes: made anew from the live figures at each scrape, so that nothing is counted twice.

The label of a job is ``job_id``: Prometheus gives a label ``job`` a meaning of its own.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from nablad.v1 import jobs_pb2 as jobs_pb
from service.job_states import MOVES, State, state_name
from service.live import LiveJob
from service.parameter_server.lines import TRANSPORTS
from service.parameter_server.telemetry import ACTIVITIES as SERVER_ACTIVITIES
from workers.frames import ACTIVITIES as WORKER_ACTIVITIES
from workers.tickets import Refusal

__all__ = ["METRICS", "JobCollector", "MetricsServer"]


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Metric:
    """A metric of a job and where its value comes from.

    Attributes:
        name: Without the suffix ``_total`` of counters, which the client library adds.
        family: Its type.
        help: What it says.
        labels: Beside job_id.
        values: The value for each set of labels.
    """

    name: str
    family: type[GaugeMetricFamily | CounterMetricFamily]
    help: str
    values: Callable[[LiveJob], Mapping[tuple[str, ...], float]]
    labels: tuple[str, ...] = ()


def _progress(field: str) -> Callable[[LiveJob], Mapping[tuple[str, ...], float]]:
    """A field of the job's progress; no sample while an optional one is not known."""
    optional = jobs_pb.Progress.DESCRIPTOR.fields_by_name[field].has_presence

    def values(live: LiveJob) -> Mapping[tuple[str, ...], float]:
        if optional and not live.progress.HasField(field):  # type: ignore[arg-type]
            return {}
        return {(): getattr(live.progress, field)}

    return values


def _by(field: str, labels: Iterable[str]) -> Callable[[LiveJob], Mapping[tuple[str, ...], float]]:
    """A map of the job's telemetry; every label from the start, so that its first count shows as an increase."""

    def values(live: LiveJob) -> Mapping[tuple[str, ...], float]:
        counted: Mapping[str, float] = getattr(live.telemetry, field)
        return {(label,): counted.get(label, 0) for label in labels}

    return values


def _telemetry(field: str) -> Callable[[LiveJob], Mapping[tuple[str, ...], float]]:
    return lambda live: {(): getattr(live.telemetry, field)}


_GAUGE, _COUNTER = GaugeMetricFamily, CounterMetricFamily

METRICS: Sequence[_Metric] = (
    _Metric("nablad_job_epoch", _GAUGE, "Epochs begun, from 1.", _progress("epoch")),
    _Metric("nablad_job_epochs", _GAUGE, "Epochs that the job asks for.", _progress("epochs")),
    _Metric("nablad_job_step", _COUNTER, "Updates of the weights.", _progress("step")),
    _Metric("nablad_job_samples", _COUNTER, "Samples that went into updates.", _progress("samples")),
    _Metric(
        "nablad_job_samples_per_second", _GAUGE, "Samples per second of the steps of this epoch.",
        _progress("samples_per_second"),
    ),
    _Metric(
        "nablad_job_training_cost", _GAUGE, "Mean cost per sample of this epoch, each mini-batch before its update.",
        _progress("training_cost"),
    ),
    _Metric(
        "nablad_job_training_accuracy_ratio", _GAUGE,
        "Share of this epoch's samples classified right, each mini-batch before its update.",
        _progress("training_accuracy"),
    ),
    _Metric(
        "nablad_job_validation_cost", _GAUGE, "Mean cost per validation row after the last finished epoch.",
        _progress("validation_cost"),
    ),
    _Metric(
        "nablad_job_validation_accuracy_ratio", _GAUGE,
        "Share of validation rows classified right after the last finished epoch.", _progress("validation_accuracy"),
    ),
    _Metric("nablad_job_learning_rate", _GAUGE, "Learning rate ε.", _progress("learning_rate")),
    _Metric(
        "nablad_job_gradient_norm", _GAUGE, "Euclidean norm of the mean gradient of a recent step.",
        _progress("gradient_norm"),
    ),
    _Metric("nablad_job_workers_alive", _GAUGE, "Workers that joined and are not lost.", _progress("workers_alive")),
    _Metric(
        "nablad_job_transport_workers", _GAUGE, "Workers that are there, by how weights and gradients reach them.",
        _by("transport_workers", TRANSPORTS), ("transport",),
    ),
    _Metric(
        "nablad_job_worker_seconds", _COUNTER, "Seconds of all workers, by what they went into.",
        _by("worker_seconds", WORKER_ACTIVITIES), ("activity",),
    ),
    _Metric(
        "nablad_job_server_seconds", _COUNTER, "Seconds of the parameter server's steps, by what they went into.",
        _by("server_seconds", SERVER_ACTIVITIES), ("activity",),
    ),
    _Metric("nablad_job_evaluations", _COUNTER, "Evaluations of the validation rows.", _telemetry("evaluations")),
    _Metric(
        "nablad_job_evaluation_seconds", _COUNTER, "Seconds for which the steps stood still for evaluations.",
        _telemetry("evaluation_seconds"),
    ),
    _Metric(
        "nablad_job_refused_results", _COUNTER, "Results of workers that were refused.",
        _by("refused", [refusal.name.lower() for refusal in Refusal]), ("reason",),
    ),
    _Metric("nablad_job_workers_lost", _COUNTER, "Workers lost in this attempt.", _telemetry("workers_lost")),
)  # fmt: skip


class JobCollector(Collector):
    """Gives the metrics of jobs to the registry, from snapshots of other threads' figures."""

    def __init__(self, snapshot: Callable[[], tuple[Mapping[State, int], Mapping[str, LiveJob]]]) -> None:
        """`snapshot` gives the number of jobs by state and the live figures by job id; called at each scrape."""
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """All families, with samples or without."""
        counts, live = self._snapshot()
        jobs = GaugeMetricFamily("nablad_jobs", "Jobs by state.", labels=["state"])
        for state in MOVES:
            jobs.add_metric([state_name(state)], counts.get(state, 0))
        yield jobs
        for metric in METRICS:
            family = metric.family(metric.name, metric.help, labels=["job_id", *metric.labels])
            for job_id, figures in live.items():
                for labels, value in metric.values(figures).items():
                    family.add_metric([job_id, *labels], value)
            yield family
        yield _step_seconds(live)


def _step_seconds(live: Mapping[str, LiveJob]) -> Metric:
    family = HistogramMetricFamily(
        "nablad_job_step_seconds", "Duration of steps, from the first ticket to the update.", labels=["job_id"]
    )
    for job_id, figures in live.items():
        telemetry = figures.telemetry
        bounds = [*map(str, telemetry.step_seconds_bounds), "+Inf"]
        counts = accumulate(telemetry.step_seconds_counts)
        buckets = list(zip(bounds, counts, strict=False))
        if buckets:
            family.add_metric([job_id], buckets, telemetry.step_seconds_sum)
    return family


def _log_connection(request: object, client_address: object) -> None:  # noqa: ARG001 (as the server calls it)
    _log.debug("the connection of %s failed", client_address)


class MetricsServer:
    """The HTTP server of ``/metrics``."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        """Serves what is registered, at once; port 0 takes a free one.

        Raises:
            OSError: The address cannot be had.
        """
        self._server, self._thread = start_http_server(port, host, registry)
        # What fails is the connection of a scraper that hung up.
        self._server.handle_error = _log_connection  # type: ignore[method-assign]
        self.address = f"{host}:{self._server.server_port}"

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
