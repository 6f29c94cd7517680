"""The table of all metrics. The registry, docs/metrics.md (which this module prints) and the tests come from it.

Names follow Prometheus's conventions: base units, ``_total`` for counters. The label of a job is ``job_id``: Prometheus
gives a label ``job`` a meaning of its own.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import click

from nablad.learning_metrics import LEARNING_METRICS, ROW_SETS, LearningMetric

__all__ = [
    "JOB_METRICS",
    "METRICS",
    "OWN_LABELS",
    "PROCESS_METRICS",
    "ROWS",
    "SERVICE_METRICS",
    "Metric",
    "Type",
    "learning_metric_name",
    "page",
]


class Type(StrEnum):
    """Of metrics, as Prometheus knows them."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"


OWN_LABELS: Final = {Type.HISTOGRAM: "le", Type.SUMMARY: "quantile"}
"""The label that goes without saying, of the types that have one."""


@dataclass(frozen=True)
class Metric:
    """A line of the table.

    Attributes:
        name: As it is scraped; of histograms and summaries, without the suffixes of their series.
        type: Its type.
        help: What it says.
        labels: Their names; ``le`` and ``quantile`` go without saying.
        unit: The base unit; empty if it is a number of something.
        buckets: Upper bounds, of histograms that the service counts itself.
    """

    name: str
    type: Type
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    buckets: tuple[float, ...] = ()


_COUNTER, _GAUGE, _HISTOGRAM, _SUMMARY = Type.COUNTER, Type.GAUGE, Type.HISTOGRAM, Type.SUMMARY

_CALL_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_LONG_SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3600.0)


def _job(name: str, type_: Type, help_: str, *labels: str, unit: str = "", buckets: tuple[float, ...] = ()) -> Metric:
    return Metric(f"nablad_job_{name}", type_, help_, ("job_id", *labels), unit, buckets)


def learning_metric_name(rows: str, metric: LearningMetric) -> str:
    """The name of the series of a metric of learning over these rows, one of `ROW_SETS`."""
    return f"nablad_job_{rows}_{metric.name}{'_ratio' if metric.is_share else ''}"


_OF_ROWS: Final = {
    "training": "of this epoch so far, each mini-batch before its update",
    "validation": "of the validation rows after the last finished epoch",
}


def _learning(rows: str, metric: LearningMetric) -> Metric:
    help_ = f"{metric.help}, {_OF_ROWS[rows]}."
    return Metric(
        learning_metric_name(rows, metric), _GAUGE, help_, ("job_id",), unit="ratio" if metric.is_share else ""
    )


JOB_METRICS: Final = (
    _job("running", _GAUGE, "1 while an attempt is followed, 0 when the job has ended."),
    _job("attempt", _GAUGE, "Number of the present attempt, from 1."),
    _job("epoch", _GAUGE, "Epochs begun, from 1."),
    _job("epochs", _GAUGE, "Epochs that the job asks for."),
    _job("step", _GAUGE, "Updates that the weights have seen, over all attempts, without what was lost."),
    _job("planned_steps", _GAUGE, "Updates of the weights that the job asks for."),
    _job("steps_total", _COUNTER, "Updates of the weights in this attempt."),
    _job("samples_total", _COUNTER, "Samples that went into the updates of this attempt."),
    _job("samples_per_second", _GAUGE, "Samples per second of the steps of this epoch."),
    *(_learning(rows, metric) for rows in ROW_SETS for metric in LEARNING_METRICS),
    _job("learning_rate", _GAUGE, "Learning rate ε."),
    _job("gradient_norm", _GAUGE, "Euclidean norm of the mean gradient of a recent step."),
    _job(
        "layer_gradient_norm", _GAUGE,
        "Euclidean norm of the mean gradient of a recent step, for the weights W(N) and biases b(N) of each layer N.",
        "layer",
    ),
    _job(
        "layer_weight_norm", _GAUGE, "Euclidean norm of the weights W(N) and biases b(N) of each layer N.", "layer",
    ),
    _job(
        "staleness_updates", _GAUGE,
        "How many updates old the weights were that a recent step's oldest gradient was computed with; 0 in sync mode.",
    ),
    _job("step_seconds", _HISTOGRAM, "Duration of steps, from the first ticket to the update.", unit="seconds"),
    _job(
        "step_phase_seconds", _SUMMARY,
        "What steps consist of; where they are shorter than 10 ms, all this is of one in 5 to 10 ms. Of the workers: "
        "compute. Of the parameter server: wait, exchange, reduce, apply. Quantiles are of the last 1024.",
        "phase", unit="seconds",
    ),
    _job("evaluations_total", _COUNTER, "Evaluations of the validation rows."),
    _job(
        "evaluation_seconds_total", _COUNTER, "Seconds for which the steps stood still for evaluations.",
        unit="seconds",
    ),
    _job("workers", _GAUGE, "Workers that the job asks for."),
    _job("workers_alive", _GAUGE, "Workers that joined and are not lost."),
    _job("workers_lost_total", _COUNTER, "Workers lost in this attempt."),
    _job(
        "transport_workers", _GAUGE, "Workers that are there, by how weights and gradients reach them.", "transport",
    ),
    _job("refused_results_total", _COUNTER, "Results of workers that were refused.", "reason"),
    _job(
        "worker_seconds_total", _COUNTER, "Seconds of all workers, by what they went into.", "activity", unit="seconds",
    ),
    _job(
        "server_seconds_total", _COUNTER, "Seconds of the parameter server's steps, by what they went into.",
        "activity", unit="seconds",
    ),
    _job("worker_results_total", _COUNTER, "Results of each worker that were taken.", "worker"),
    _job("worker_samples_total", _COUNTER, "Samples in the results of each worker that were taken.", "worker"),
    _job(
        "worker_lag_seconds_total", _COUNTER,
        "How long after the first result of their step the results of each worker came, summed up.", "worker",
        unit="seconds",
    ),
    _job(
        "process_cpu_seconds_total", _COUNTER,
        "CPU seconds of the job's processes: parameter_server, and each worker by its name.", "process", unit="seconds",
    ),
    _job(
        "process_resident_memory_bytes", _GAUGE,
        "Resident memory of the job's processes: parameter_server, and each worker by its name.", "process",
        unit="bytes",
    ),
    _job("checkpoints_total", _COUNTER, "Checkpoints written in this attempt."),
    _job("checkpoint_failures_total", _COUNTER, "Checkpoints that could not be written in this attempt."),
    _job("checkpoint_step", _GAUGE, "Updates of the weights in the newest checkpoint."),
    _job(
        "checkpoint_timestamp_seconds", _GAUGE,
        "When the newest checkpoint was written, or the attempt began if that was later, in Unix time.", unit="seconds",
    ),
    _job(
        "checkpoint_interval_seconds", _GAUGE,
        "How often the job wants checkpoints by time.", unit="seconds",
    ),
)  # fmt: skip
"""Of each job that runs or has ended a short while ago. All have the label job_id."""

SERVICE_METRICS: Final = (
    Metric("nablad_build_info", _GAUGE, "Always 1; its labels say what runs.", ("version", "code", "python", "grpc")),
    Metric("nablad_jobs", _GAUGE, "Jobs by state.", ("state",)),
    Metric("nablad_jobs_ended_total", _COUNTER, "Jobs that have ended, by their last state.", ("state",)),
    Metric(
        "nablad_jobs_set_aside_total", _COUNTER,
        "Jobs that were paused because the service had ended again and again while they ran.",
    ),
    Metric(
        "nablad_queue_jobs", _GAUGE, "Jobs in the queue, by priority: low is below 0, high is above.", ("priority",)
    ),
    Metric(
        "nablad_queue_oldest_seconds", _GAUGE,
        "The longest that one of the jobs has been in the queue, by priority.",
        ("priority",), "seconds",
    ),
    Metric(
        "nablad_queue_wait_seconds", _HISTOGRAM, "How long jobs were in the queue before their processes were started.",
        ("priority",), "seconds", _LONG_SECONDS,
    ),
    Metric("nablad_attempts_total", _COUNTER, "Attempts that were launched."),
    Metric("nablad_attempts_lost_total", _COUNTER, "Attempts that were lost, by what was lost.", ("cause",)),
    Metric(
        "nablad_recovery_seconds", _HISTOGRAM,
        "From the loss of an attempt until the next one runs, by what was lost; of the service, "
        "from when it is back.", ("cause",), "seconds",
        _LONG_SECONDS,
    ),
    Metric("nablad_cluster_up", _GAUGE, "1 while Ray is there, 0 while it is away."),
    Metric("nablad_cluster_nodes", _GAUGE, "Nodes of the Ray cluster."),
    Metric("nablad_cluster_cpus", _GAUGE, "CPUs of the Ray cluster, busy or not."),
    Metric("nablad_cluster_free_cpus", _GAUGE, "CPUs of the Ray cluster that nobody has."),
    Metric(
        "nablad_cluster_losses_total", _COUNTER, "How often Ray, or the process that speaks to it, was lost."
    ),
    Metric("nablad_checkpoints_total", _COUNTER, "Checkpoints that were written."),
    Metric("nablad_checkpoint_bytes_total", _COUNTER, "Bytes of the checkpoints that were written.", unit="bytes"),
    Metric(
        "nablad_checkpoint_seconds", _HISTOGRAM, "How long checkpoints took to be fetched and written.", (), "seconds",
        (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
    ),
    Metric("nablad_checkpoint_failures_total", _COUNTER, "Checkpoints that could not be written."),
    Metric("nablad_watchers", _GAUGE, "Clients that watch jobs."),
    Metric("nablad_rpcs_total", _COUNTER, "Calls that have ended, by method and status code.", ("method", "code")),
    Metric("nablad_rpcs_active", _GAUGE, "Calls that are under way, by method.", ("method",)),
    Metric(
        "nablad_rpc_seconds", _HISTOGRAM, "Duration of calls that have one answer, by method.", ("method",), "seconds",
        _CALL_SECONDS,
    ),
    Metric(
        "nablad_store_commit_seconds", _HISTOGRAM, "How long transactions of the database took to reach the disk.", (),
        "seconds", (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    ),
    Metric("nablad_store_bytes", _GAUGE, "Size of the database with its log.", unit="bytes"),
    Metric(
        "nablad_data_directory_free_bytes", _GAUGE, "Room on the file system of the data directory.", unit="bytes"
    ),
    Metric(
        "nablad_data_directory_reserve_bytes", _GAUGE,
        "Room on the file system of the data directory that is kept for what frees room or stops work.", unit="bytes",
    ),
    Metric(
        "nablad_data_directory_size_bytes", _GAUGE, "Size of the file system of the data directory.", unit="bytes"
    ),
)  # fmt: skip
"""Of the service itself."""

PROCESS_METRICS: Final = tuple(
    Metric(f"{prefix}_{name}", type_, f"{help_} of the {whose}.", unit=unit)
    for prefix, whose in (("nablad_process", "service"), ("nablad_cluster_process", "process that speaks to Ray"))
    for name, type_, help_, unit in (
        ("virtual_memory_bytes", _GAUGE, "Virtual memory", "bytes"),
        ("resident_memory_bytes", _GAUGE, "Resident memory", "bytes"),
        ("start_time_seconds", _GAUGE, "Start, in Unix time,", "seconds"),
        ("cpu_seconds_total", _COUNTER, "CPU seconds", "seconds"),
        ("open_fds", _GAUGE, "Open descriptors", ""),
        ("max_fds", _GAUGE, "Limit of open descriptors", ""),
    )
)
"""Of the service's processes, as prometheus_client's ProcessCollector gives them."""

METRICS: Final = (*SERVICE_METRICS, *PROCESS_METRICS, *JOB_METRICS)
"""All of them."""

ROWS: Final = {metric.name: metric for metric in METRICS}
"""By name."""

_HEAD = """# Metrics

Served at `/metrics`, on 127.0.0.1:7472 if nothing else was said (`--metrics-address`), in OpenMetrics for
those who ask for that, as Prometheus does, else in Prometheus's text format; gzipped for those who ask for that.

Made from the table in `service/metrics/table.py` by `python -m service.metrics.table > docs/metrics.md`; a test
holds it fresh.

- The label of a job is `job_id`: Prometheus gives a label `job` a meaning of its own.
- The series of a job are there from the beginning of its first attempt, and go away 15 minutes after its end. While it
  is in the queue between two attempts, or paused, it has none. Counters of a job begin at 0 with each attempt.
- The first 64 workers of a job have series of their own; those of all others are summed up as `others`.
- Counters whose labels are known are there from the start of the service, so that a first count shows as an increase.
- What the parameter server tells of a job beside its progress is a second old, or a little more.
- Shorter jobs than the interval of scraping are not lost: `nabla job history` has the figures of every epoch.
"""
_SECTIONS = (("Jobs", JOB_METRICS), ("The service", SERVICE_METRICS), ("Processes of the service", PROCESS_METRICS))


def page() -> str:
    """docs/metrics.md."""
    parts = [_HEAD]
    for title, metrics in _SECTIONS:
        parts.append(f"\n## {title}\n\n| name | type | labels | unit | |\n| --- | --- | --- | --- | --- |\n")
        parts.extend(_line(metric) for metric in metrics)
    return "".join(parts)


def _line(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.type} | {labels} | {metric.unit} | {metric.help} |\n"


if __name__ == "__main__":
    click.echo(page(), nl=False)
