"""Table of all metrics: the source of the registry, of docs/metrics.md (which this module prints) and of tests.

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
    """Types of metrics in Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"


OWN_LABELS: Final = {Type.HISTOGRAM: "le", Type.SUMMARY: "quantile"}
"""Label that Prometheus adds to the series of a type."""


@dataclass(frozen=True)
class Metric:
    """Row of the table.

    Attributes:
        name: Name on the page; for histograms and summaries, without the suffixes of their series.
        type: Type in Prometheus.
        help: HELP text: one or two sentences.
        labels: Names of the labels, without ``le`` and ``quantile``.
        unit: Base unit; empty for a count.
        buckets: Upper bounds of a histogram that the service fills itself.
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
    """Returns the name of a learning metric over a set of rows, one of `ROW_SETS`."""
    return f"nablad_job_{rows}_{metric.name}{'_ratio' if metric.is_share else ''}"


_OF_ROWS: Final = {
    "training": "over the current epoch so far, each mini-batch before its update",
    "validation": "over the validation rows after the last finished epoch",
}


def _learning(rows: str, metric: LearningMetric) -> Metric:
    help_ = f"{metric.help}, {_OF_ROWS[rows]}."
    return Metric(
        learning_metric_name(rows, metric), _GAUGE, help_, ("job_id",), unit="ratio" if metric.is_share else ""
    )


JOB_METRICS: Final = (
    _job("running", _GAUGE, "1 while the job has an attempt, 0 after its end."),
    _job("attempt", _GAUGE, "Number of the current attempt, from 1."),
    _job("epoch", _GAUGE, "Number of the current epoch, from 1."),
    _job("epochs", _GAUGE, "Epochs that the job requests."),
    _job("step", _GAUGE, "Updates of the weights over all attempts, without lost ones."),
    _job("planned_steps", _GAUGE, "Updates of the weights that the job requests."),
    _job("steps_total", _COUNTER, "Updates of the weights in this attempt."),
    _job("samples_total", _COUNTER, "Samples in the updates of this attempt."),
    _job("samples_per_second", _GAUGE, "Samples per second in the steps of the current epoch."),
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
        "Age of the weights of the oldest gradient in a recent step, in updates; 0 in sync mode.",
    ),
    _job("step_seconds", _HISTOGRAM, "Duration of steps from the first ticket to the update.", unit="seconds"),
    _job(
        "step_phase_seconds", _SUMMARY,
        "Duration of the phases of steps: compute (workers), wait, exchange, reduce and apply (parameter server). Of "
        "steps shorter than 10 ms, one in 5 to 10 ms is sampled. Quantiles are over the last 1024 samples.",
        "phase", unit="seconds",
    ),
    _job("evaluations_total", _COUNTER, "Evaluations of the validation rows."),
    _job(
        "evaluation_seconds_total", _COUNTER, "Time in evaluations, while no steps are made.",
        unit="seconds",
    ),
    _job("workers", _GAUGE, "Workers that the job requests."),
    _job("workers_alive", _GAUGE, "Workers that have joined and are alive."),
    _job("workers_lost_total", _COUNTER, "Workers lost in this attempt."),
    _job(
        "dropped_micro_batches_total", _COUNTER,
        "Micro-batches of this attempt that the policy did not wait for; their gradients are never applied.",
    ),
    _job(
        "transport_workers", _GAUGE, "Live workers by transport of weights and gradients.", "transport",
    ),
    _job(
        "core_steps_total", _COUNTER,
        "Updates of the weights in this attempt by the code that made them: native (in C) or python. Results are the "
        "same.", "core",
    ),
    _job("refused_results_total", _COUNTER, "Rejected results of workers, by reason.", "reason"),
    _job(
        "worker_seconds_total", _COUNTER, "Time of all workers, by activity.", "activity", unit="seconds",
    ),
    _job(
        "server_seconds_total", _COUNTER, "Time of the parameter server in steps, by activity.",
        "activity", unit="seconds",
    ),
    _job("worker_results_total", _COUNTER, "Accepted results by worker.", "worker"),
    _job("worker_samples_total", _COUNTER, "Samples in accepted results by worker.", "worker"),
    _job(
        "worker_lag_seconds_total", _COUNTER,
        "Sum of the delays of a worker's results after the first result of their step.", "worker",
        unit="seconds",
    ),
    _job(
        "process_cpu_seconds_total", _COUNTER,
        "CPU time of the job's processes: parameter_server, and each worker by its name.", "process", unit="seconds",
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
        "Unix time of the newest checkpoint, or of the start of the attempt if that was later.", unit="seconds",
    ),
    _job(
        "checkpoint_interval_seconds", _GAUGE,
        "Interval between checkpoints that the job requests.", unit="seconds",
    ),
)  # fmt: skip
"""Metrics of each job that runs or has ended recently, with the label job_id."""

SERVICE_METRICS: Final = (
    Metric("nablad_build_info", _GAUGE, "Always 1; the labels are versions.", ("version", "code", "python", "grpc")),
    Metric("nablad_jobs", _GAUGE, "Jobs by state.", ("state",)),
    Metric("nablad_jobs_ended_total", _COUNTER, "Ended jobs by final state.", ("state",)),
    Metric(
        "nablad_jobs_set_aside_total", _COUNTER,
        "Jobs that were paused because the service had died three times in a row while they ran.",
    ),
    Metric(
        "nablad_queue_jobs", _GAUGE, "Queued jobs by priority: low is below 0, high is above 0.", ("priority",)
    ),
    Metric(
        "nablad_queue_oldest_seconds", _GAUGE,
        "Longest present waiting time of a queued job, by priority.",
        ("priority",), "seconds",
    ),
    Metric(
        "nablad_queue_wait_seconds", _HISTOGRAM,
        "Time of jobs in the queue until their processes were started, by priority.",
        ("priority",), "seconds", _LONG_SECONDS,
    ),
    Metric("nablad_attempts_total", _COUNTER, "Launched attempts."),
    Metric("nablad_attempts_lost_total", _COUNTER, "Lost attempts by cause.", ("cause",)),
    Metric(
        "nablad_recovery_seconds", _HISTOGRAM,
        "Time from the loss of an attempt until the next one runs, by cause. For the service, the "
        "time begins at its restart.", ("cause",), "seconds",
        _LONG_SECONDS,
    ),
    Metric("nablad_cluster_up", _GAUGE, "1 while Ray is connected, else 0."),
    Metric("nablad_cluster_nodes", _GAUGE, "Nodes of the Ray cluster."),
    Metric("nablad_cluster_cpus", _GAUGE, "CPUs of the Ray cluster."),
    Metric("nablad_cluster_free_cpus", _GAUGE, "Unallocated CPUs of the Ray cluster."),
    Metric(
        "nablad_cluster_losses_total", _COUNTER, "Losses of Ray or of the cluster process."
    ),
    Metric("nablad_checkpoints_total", _COUNTER, "Written checkpoints."),
    Metric("nablad_checkpoint_bytes_total", _COUNTER, "Bytes of written checkpoints.", unit="bytes"),
    Metric(
        "nablad_checkpoint_seconds", _HISTOGRAM, "Duration of fetching and writing a checkpoint.", (), "seconds",
        (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
    ),
    Metric("nablad_checkpoint_failures_total", _COUNTER, "Checkpoints that could not be written."),
    Metric("nablad_watchers", _GAUGE, "Open watches of jobs."),
    Metric("nablad_rpcs_total", _COUNTER, "Finished calls by method and status code.", ("method", "code")),
    Metric("nablad_rpcs_active", _GAUGE, "Calls in progress by method.", ("method",)),
    Metric(
        "nablad_rpc_seconds", _HISTOGRAM,
        "Duration of calls by method, without those that stream their answer.",
        ("method",), "seconds", _CALL_SECONDS,
    ),
    Metric(
        "nablad_store_commit_seconds", _HISTOGRAM,
        "Duration of commits to the database, including the sync to disk.", (), "seconds",
        (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    ),
    Metric("nablad_store_bytes", _GAUGE, "Size of the database with its write-ahead log.", unit="bytes"),
    Metric(
        "nablad_data_directory_free_bytes", _GAUGE, "Free space on the file system of the data directory.", unit="bytes"
    ),
    Metric(
        "nablad_data_directory_reserve_bytes", _GAUGE,
        "Reserved space for calls that free space or stop work when the disk is full.", unit="bytes",
    ),
    Metric(
        "nablad_data_directory_size_bytes", _GAUGE, "Size of the file system of the data directory.", unit="bytes"
    ),
)  # fmt: skip
"""Metrics of the service itself."""

PROCESS_METRICS: Final = tuple(
    Metric(f"{prefix}_{name}", type_, f"{help_} of the {whose}.", unit=unit)
    for prefix, whose in (
        ("nablad_process", "service"),
        ("nablad_cluster_process", "cluster process, which speaks to Ray"),
    )
    for name, type_, help_, unit in (
        ("virtual_memory_bytes", _GAUGE, "Virtual memory", "bytes"),
        ("resident_memory_bytes", _GAUGE, "Resident memory", "bytes"),
        ("start_time_seconds", _GAUGE, "Start time, in Unix time,", "seconds"),
        ("cpu_seconds_total", _COUNTER, "CPU time", "seconds"),
        ("open_fds", _GAUGE, "Open file descriptors", ""),
        ("max_fds", _GAUGE, "Limit of open file descriptors", ""),
    )
)
"""Metrics of the service's processes, from prometheus_client's ProcessCollector."""

METRICS: Final = (*SERVICE_METRICS, *PROCESS_METRICS, *JOB_METRICS)
"""All metrics."""

ROWS: Final = {metric.name: metric for metric in METRICS}
"""Metrics by name."""

_HEAD = """# Metrics

The service serves `/metrics` on 127.0.0.1:7472 unless `--metrics-address` says otherwise. The format is OpenMetrics for
scrapers that accept it, as Prometheus does, else Prometheus's text format; both are gzipped on request.

Generated from `service/metrics/table.py` by `python -m service.metrics.table > docs/metrics.md`; a test compares
both.

- The label of a job is `job_id`, because Prometheus uses the label `job` for the scrape job.
- A job has series from the start of its first attempt until 15 minutes after its end. It has none while it is queued
  between two attempts, or paused. Counters of a job begin at 0 with each attempt.
- The first 64 workers of a job have series of their own; all others are summed up as `others`.
- Counters with known labels exist from the start of the service, so that the first count shows as an increase.
- The parameter server reports its metrics about once a second.
- Jobs that are shorter than the scrape interval keep their metrics in `nabla job history`.
"""
_SECTIONS = (("Jobs", JOB_METRICS), ("The service", SERVICE_METRICS), ("Processes of the service", PROCESS_METRICS))


def page() -> str:
    """Returns docs/metrics.md."""
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
