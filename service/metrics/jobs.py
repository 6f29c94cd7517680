"""The series of jobs, as text: from the figures that parameter servers tell.

A thousand jobs have a hundred thousand series. prometheus_client takes 5 µs for a sample of a collector, mostly for its
labels; here the labels of a series are put together once and kept as long as the job is.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final, TypeAlias

from prometheus_client.utils import floatToGoString

from nablad.v1 import jobs_pb2 as jobs_pb
from service.live import LiveJob
from service.metrics.table import JOB_METRICS, OWN_LABELS, Metric
from service.parameter_server.lines import TRANSPORTS
from service.parameter_server.telemetry import ACTIVITIES as SERVER_ACTIVITIES
from workers.frames import ACTIVITIES as WORKER_ACTIVITIES
from workers.tickets import Refusal

__all__ = ["JobSeries"]

# What comes after the name of the metric, such as _sum; the values of its labels beside job_id; and the value.
_Sample: TypeAlias = tuple[str, tuple[str, ...], float]
_Source: TypeAlias = Callable[[LiveJob], Iterable[_Sample]]

# A worker that comes and goes has another name each time.
_MOST_REMEMBERED: Final = 5000


def _attribute(name: str) -> _Source:
    """Of the live job; no sample while it is None."""

    def samples(live: LiveJob) -> Iterable[_Sample]:
        value = getattr(live, name)
        return [] if value is None else [("", (), value)]

    return samples


def _progress(field: str) -> _Source:
    """A field of the job's progress; no sample while an optional one is not known."""
    optional = jobs_pb.Progress.DESCRIPTOR.fields_by_name[field].has_presence

    def samples(live: LiveJob) -> Iterable[_Sample]:
        progress = live.progress  # another one may take its place meanwhile
        known = not optional or progress.HasField(field)  # type: ignore[arg-type]
        return [("", (), getattr(progress, field))] if known else []

    return samples


def _telemetry(field: str) -> _Source:
    return lambda live: [("", (), getattr(live.telemetry, field))]


def _by(field: str, labels: Iterable[str]) -> _Source:
    """A map of the job's telemetry; every label from the start, so that its first count shows as an increase."""
    keys = [(label, (label,)) for label in labels]

    def samples(live: LiveJob) -> Iterable[_Sample]:
        counted: Mapping[str, float] = getattr(live.telemetry, field)
        return [("", key, counted.get(label, 0)) for label, key in keys]

    return samples


def _layers(field: str) -> _Source:
    def samples(live: LiveJob) -> Iterable[_Sample]:
        return [("", (str(layer),), getattr(norms, field)) for layer, norms in enumerate(live.telemetry.layers)]

    return samples


def _workers(field: str) -> _Source:
    def samples(live: LiveJob) -> Iterable[_Sample]:
        return [("", (worker.worker_id,), getattr(worker, field)) for worker in live.telemetry.workers]

    return samples


def _processes(field: str) -> _Source:
    def samples(live: LiveJob) -> Iterable[_Sample]:
        telemetry = live.telemetry
        if telemetry.HasField("process"):
            yield "", ("parameter_server",), getattr(telemetry.process, field)
        for worker in telemetry.workers:
            if worker.HasField("process"):
                yield "", (worker.worker_id,), getattr(worker.process, field)

    return samples


def _step_seconds(live: LiveJob) -> Iterator[_Sample]:
    telemetry = live.telemetry
    bounds = [*map(floatToGoString, telemetry.step_seconds_bounds), "+Inf"]
    counts = list(accumulate(telemetry.step_seconds_counts))
    for bound, count in zip(bounds, counts, strict=False):
        yield "_bucket", (bound,), count
    if counts:
        yield "_count", (), counts[-1]
        yield "_sum", (), telemetry.step_seconds_sum


def _step_phase_seconds(live: LiveJob) -> Iterator[_Sample]:
    for figures in live.telemetry.phases:
        phase = figures.phase
        yield "", (phase, "0.5"), figures.p50
        yield "", (phase, "0.9"), figures.p90
        yield "", (phase, "0.99"), figures.p99
        yield "_count", (phase,), figures.steps
        yield "_sum", (phase,), figures.seconds_sum


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
    "nablad_job_training_cost": _progress("training_cost"),
    "nablad_job_training_accuracy_ratio": _progress("training_accuracy"),
    "nablad_job_validation_cost": _progress("validation_cost"),
    "nablad_job_validation_accuracy_ratio": _progress("validation_accuracy"),
    "nablad_job_learning_rate": _progress("learning_rate"),
    "nablad_job_gradient_norm": _progress("gradient_norm"),
    "nablad_job_layer_gradient_norm": _layers("gradient_norm"),
    "nablad_job_layer_weight_norm": _layers("weight_norm"),
    "nablad_job_staleness_updates": _telemetry("staleness"),
    "nablad_job_step_seconds": _step_seconds,
    "nablad_job_step_phase_seconds": _step_phase_seconds,
    "nablad_job_evaluations_total": _telemetry("evaluations"),
    "nablad_job_evaluation_seconds_total": _telemetry("evaluation_seconds"),
    "nablad_job_workers": _attribute("workers"),
    "nablad_job_workers_alive": _progress("workers_alive"),
    "nablad_job_workers_lost_total": _telemetry("workers_lost"),
    "nablad_job_transport_workers": _by("transport_workers", TRANSPORTS),
    "nablad_job_refused_results_total": _by("refused", [refusal.name.lower() for refusal in Refusal]),
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
    """Writes the series of jobs. Belongs to one thread."""

    def __init__(self) -> None:
        self._beginnings: dict[str, dict[tuple[str, str, tuple[str, ...]], str]] = {}

    def lines(self, jobs: Mapping[str, LiveJob]) -> Iterator[str]:
        """All families, with samples or without, in the text format 0.0.4 of Prometheus.

        Args:
            jobs: The live figures by job id.
        """
        self._beginnings = {job_id: self._remembered(job_id) for job_id in jobs}
        for metric in JOB_METRICS:
            yield f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.type}\n"
            source = _SOURCES[metric.name]
            for job_id, live in jobs.items():
                beginnings = self._beginnings[job_id]
                for suffix, values, value in source(live):
                    key = (metric.name, suffix, values)
                    if (beginning := beginnings.get(key)) is None:
                        beginning = beginnings[key] = _beginning(metric, job_id, suffix, values)
                    yield f"{beginning}{floatToGoString(value)}\n"  # type: ignore[no-untyped-call]

    def _remembered(self, job_id: str) -> dict[tuple[str, str, tuple[str, ...]], str]:
        remembered = self._beginnings.get(job_id, {})
        return remembered if len(remembered) < _MOST_REMEMBERED else {}


def _beginning(metric: Metric, job_id: str, suffix: str, values: Sequence[str]) -> str:
    """A sample's line up to its value."""
    names = [*metric.labels, OWN_LABELS.get(metric.type, "")]
    pairs = zip(names, (job_id, *values), strict=False)
    labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs)
    return f"{metric.name}{suffix}{{{labels}}} "


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
