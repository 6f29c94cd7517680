"""Series of jobs as text, written from the live statuses of jobs.

A thousand jobs have a hundred thousand series. prometheus_client takes 5 µs for a sample of a collector, mostly for its
labels. Here the labels of a job's series are formatted once, and again only when they change.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Final, TypeAlias

from prometheus_client.utils import floatToGoString

from nablad.learning_metrics import LEARNING_METRICS, ROW_SETS, LearningMetric
from nablad.v1 import jobs_pb2 as jobs_pb
from service.events.live_status import JobStatus
from service.metrics.table import JOB_METRICS, OWN_LABELS, Metric, learning_metric_name
from service.parameter_server.progress.attempt_statistics import ACTIVITIES as SERVER_ACTIVITIES
from service.parameter_server.progress.attempt_statistics import STEP_CORES
from workers.transport.frames import ACTIVITIES as WORKER_ACTIVITIES
from workers.transport.frames import TRANSPORTS
from workers.transport.tickets import Rejection

__all__ = ["JobSeries"]

# Samples of a metric for one job: the suffix of each name, such as _sum, and the values of labels other than job_id.
_Shape: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]
# Shape and values.
_Samples: TypeAlias = tuple[_Shape, Sequence[float]]
_Source: TypeAlias = Callable[[JobStatus], _Samples]

_NONE: Final[_Samples] = ((), ())
_ONE: Final[_Shape] = (("", ()),)


def _attribute(name: str) -> _Source:
    """Source of an attribute of the job's status; no sample while it is None."""

    def samples(live: JobStatus) -> _Samples:
        value = getattr(live, name)
        return _NONE if value is None else (_ONE, (+value,))  # True is 1

    return samples


def _progress(field: str) -> _Source:
    """Source of a field of the job's progress; no sample while an optional field is unset."""
    optional = jobs_pb.Progress.DESCRIPTOR.fields_by_name[field].has_presence

    def samples(live: JobStatus) -> _Samples:
        progress = live.progress  # the event loop may replace it meanwhile
        known = not optional or progress.HasField(field)  # type: ignore[arg-type]
        return (_ONE, (getattr(progress, field),)) if known else _NONE

    return samples


def _learning(rows: str, metric: LearningMetric) -> _Source:
    """Source of a learning metric; no sample while its value is unknown."""

    def samples(live: JobStatus) -> _Samples:
        value = metric.value(getattr(live.progress, rows))
        return _NONE if value is None else (_ONE, (value,))

    return samples


def _statistics(field: str) -> _Source:
    """Source of a field of the attempt's statistics."""
    return lambda live: (_ONE, (getattr(live.statistics, field),))


def _by(field: str, labels: Iterable[str]) -> _Source:
    """Source of a map in the attempt's statistics. All labels exist from the start, so a first count is an increase."""
    names = tuple(labels)
    shape = _labelled(names)

    def samples(live: JobStatus) -> _Samples:
        counted: Mapping[str, float] = getattr(live.statistics, field)
        return shape, [counted.get(name, 0) for name in names]

    return samples


def _layers(field: str) -> _Source:
    def samples(live: JobStatus) -> _Samples:
        layers = live.statistics.layers
        return _labelled(tuple(map(str, range(len(layers))))), [getattr(norms, field) for norms in layers]

    return samples


def _workers(field: str) -> _Source:
    def samples(live: JobStatus) -> _Samples:
        workers = live.statistics.workers
        return _labelled(tuple(worker.worker_id for worker in workers)), [getattr(worker, field) for worker in workers]

    return samples


def _processes(field: str) -> _Source:
    def samples(live: JobStatus) -> _Samples:
        statistics = live.statistics
        processes = {worker.worker_id: worker.process for worker in statistics.workers if worker.HasField("process")}
        if statistics.HasField("process"):
            processes["parameter_server"] = statistics.process
        return _labelled(tuple(processes)), [getattr(process, field) for process in processes.values()]

    return samples


def _step_seconds(live: JobStatus) -> _Samples:
    statistics = live.statistics
    counts = list(accumulate(statistics.step_seconds_counts))
    if len(counts) != len(statistics.step_seconds_bounds) + 1:
        return _NONE
    return _histogram(tuple(statistics.step_seconds_bounds)), [*counts, counts[-1], statistics.step_seconds_sum]


def _step_phase_seconds(live: JobStatus) -> _Samples:
    phases = live.statistics.phases
    values = [value for phase in phases for value in (phase.p50, phase.p90, phase.p99, phase.steps, phase.seconds_sum)]
    return _summaries(tuple(phase.phase for phase in phases)), values


# Many jobs have the same shape. Caching makes it one object, so that comparing shapes is fast.


@lru_cache
def _labelled(values: tuple[str, ...]) -> _Shape:
    """Returns the shape with one sample per value of the only label."""
    return tuple(("", (value,)) for value in values)


@lru_cache
def _histogram(bounds: tuple[float, ...]) -> _Shape:
    classes = [*map(floatToGoString, bounds), "+Inf"]  # in prometheus_client's notation
    return (*(("_bucket", (bound,)) for bound in classes), ("_count", ()), ("_sum", ()))


@lru_cache
def _summaries(values: tuple[str, ...]) -> _Shape:
    """Returns the shape with one summary per value of the only label."""
    quantiles = [("", "0.5"), ("", "0.9"), ("", "0.99"), ("_count", None), ("_sum", None)]
    return tuple((suffix, (value, own) if own else (value,)) for value in values for suffix, own in quantiles)


_SOURCES: Final[Mapping[str, _Source]] = {
    "nablad_job_running": _attribute("running"),
    "nablad_job_attempt": _attribute("attempt"),
    "nablad_job_epoch": _progress("epoch"),
    "nablad_job_epochs": _progress("epochs"),
    "nablad_job_step": _progress("step"),
    "nablad_job_planned_steps": _progress("steps"),
    "nablad_job_steps_total": _attribute("steps_made"),
    "nablad_job_samples_total": _attribute("samples_made"),
    "nablad_job_samples_per_second": _progress("samples_per_second"),
    **{learning_metric_name(rows, metric): _learning(rows, metric) for rows in ROW_SETS for metric in LEARNING_METRICS},
    "nablad_job_learning_rate": _progress("learning_rate"),
    "nablad_job_gradient_norm": _progress("gradient_norm"),
    "nablad_job_layer_gradient_norm": _layers("gradient_norm"),
    "nablad_job_layer_weight_norm": _layers("weight_norm"),
    "nablad_job_staleness_updates": _statistics("staleness"),
    "nablad_job_step_seconds": _step_seconds,
    "nablad_job_step_phase_seconds": _step_phase_seconds,
    "nablad_job_evaluations_total": _statistics("evaluations"),
    "nablad_job_evaluation_seconds_total": _statistics("evaluation_seconds"),
    "nablad_job_workers": _attribute("workers"),
    "nablad_job_workers_alive": _progress("workers_alive"),
    "nablad_job_workers_lost_total": _statistics("workers_lost"),
    "nablad_job_dropped_micro_batches_total": _statistics("dropped_micro_batches"),
    "nablad_job_transport_workers": _by("transport_workers", TRANSPORTS),
    "nablad_job_core_steps_total": _by("core_steps", STEP_CORES),
    "nablad_job_refused_results_total": _by("rejected", [rejection.name.lower() for rejection in Rejection]),
    "nablad_job_worker_seconds_total": _by("worker_seconds", WORKER_ACTIVITIES),
    "nablad_job_server_seconds_total": _by("server_seconds", SERVER_ACTIVITIES),
    "nablad_job_worker_results_total": _workers("results"),
    "nablad_job_worker_samples_total": _workers("samples"),
    "nablad_job_worker_lag_seconds_total": _workers("lag_seconds"),
    "nablad_job_process_cpu_seconds_total": _processes("cpu_seconds"),
    "nablad_job_process_resident_memory_bytes": _processes("resident_memory_bytes"),
    "nablad_job_checkpoints_total": _attribute("checkpoints"),
    "nablad_job_checkpoint_failures_total": _attribute("checkpoint_failures"),
    "nablad_job_checkpoint_step": _attribute("checkpoint_step"),
    "nablad_job_checkpoint_timestamp_seconds": _attribute("checkpoint_time"),
    "nablad_job_checkpoint_interval_seconds": _attribute("checkpoint_interval"),
}


class JobSeries:
    """Writer of the series of jobs. For use by one thread at a time."""

    def __init__(self) -> None:
        # By metric and job: the shape of the last page, and its lines with a placeholder for each value.
        self._templates: dict[str, Mapping[str, tuple[_Shape, str]]] = {}

    def lines(self, jobs: Mapping[str, JobStatus], *, is_openmetrics: bool = False) -> Iterator[str]:
        """Yields all families, with or without samples, in Prometheus's text format 0.0.4 or in OpenMetrics.

        Samples are the same in both; in OpenMetrics, the family of a counter has no suffix. The end marker is left out.

        Args:
            jobs: Live statuses by job id.
            is_openmetrics: Selects the format.
        """
        for metric in JOB_METRICS:
            family = metric.name.removesuffix("_total") if is_openmetrics else metric.name
            yield f"# HELP {family} {metric.help}\n# TYPE {family} {metric.type}\n"
            yield self._samples(metric, jobs)

    def _samples(self, metric: Metric, jobs: Mapping[str, JobStatus]) -> str:
        source, known = _SOURCES[metric.name], self._templates.get(metric.name, {})
        templates: dict[str, tuple[_Shape, str]] = {}
        all_values: list[float] = []
        for job_id, live in jobs.items():
            shape, values = source(live)
            template = known.get(job_id)
            if template is None or (template[0] is not shape and template[0] != shape):
                template = shape, _template(metric, job_id, shape)
            templates[job_id] = template
            all_values += values
        self._templates[metric.name] = templates
        return "".join(lines for _, lines in templates.values()) % tuple(all_values)


def _template(metric: Metric, job_id: str, shape: _Shape) -> str:
    """Returns the samples' lines with placeholders. Values are formatted by repr, which Prometheus can read."""
    prefixes = (_prefix(metric, job_id, suffix, values) for suffix, values in shape)
    return "".join(prefix.replace("%", "%%") + "%r\n" for prefix in prefixes)


def _prefix(metric: Metric, job_id: str, suffix: str, values: Sequence[str]) -> str:
    """Returns a sample's line up to its value."""
    names = [*metric.labels, OWN_LABELS.get(metric.type, "")]
    pairs = zip(names, (job_id, *values), strict=False)
    labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs)
    return f"{metric.name}{suffix}{{{labels}}} "


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
