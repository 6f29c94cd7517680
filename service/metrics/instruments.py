"""Counters and histograms that the service updates itself, over all jobs and since its start."""

from collections.abc import Iterable
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.metrics import MetricWrapperBase

from service.events.job_events import LOSS_CAUSES
from service.metrics.table import ROWS, Metric, Type
from service.stores.job_states import ENDED, state_name

__all__ = ["PRIORITIES", "Instruments", "priority_class"]

PRIORITIES: Final = ("low", "normal", "high")
"""Priority classes in labels: below 0, 0, above 0. They bound the number of series, as each number would be one."""

# Creation times carry no information, because all instruments are created at the start.
disable_created_metrics()  # type: ignore[no-untyped-call]

_Instrument = TypeVar("_Instrument", bound=MetricWrapperBase)


def priority_class(priority: int) -> str:
    """Returns the priority class of a job's priority."""
    return PRIORITIES[(priority > 0) - (priority < 0) + 1]


class Instruments:
    """Counters and histograms of the table that the service updates itself.

    Series with known labels exist from the start, so that a first count shows as an increase.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.jobs_ended = self._labelled(self._counter("nablad_jobs_ended_total"), map(state_name, sorted(ENDED)))
        self.queue_wait_seconds = self._labelled(self._histogram("nablad_queue_wait_seconds"), PRIORITIES)
        self.jobs_set_aside = self._counter("nablad_jobs_set_aside_total")
        self.attempts = self._counter("nablad_attempts_total")
        self.attempts_lost = self._labelled(self._counter("nablad_attempts_lost_total"), LOSS_CAUSES)
        self.recovery_seconds = self._labelled(self._histogram("nablad_recovery_seconds"), LOSS_CAUSES)
        self.cluster_losses = self._counter("nablad_cluster_losses_total")
        self.checkpoints = self._counter("nablad_checkpoints_total")
        self.checkpoint_bytes = self._counter("nablad_checkpoint_bytes_total")
        self.checkpoint_seconds = self._histogram("nablad_checkpoint_seconds")
        self.checkpoint_failures = self._counter("nablad_checkpoint_failures_total")
        self.rpcs = self._counter("nablad_rpcs_total")
        self.rpcs_active = self._gauge("nablad_rpcs_active")
        self.rpc_seconds = self._histogram("nablad_rpc_seconds")
        self.store_commit_seconds = self._histogram("nablad_store_commit_seconds")

    def _counter(self, name: str) -> Counter:
        metric = _row(name, Type.COUNTER)
        # The library adds the suffix itself.
        return Counter(name.removesuffix("_total"), metric.help, metric.labels, registry=self._registry)

    def _gauge(self, name: str) -> Gauge:
        metric = _row(name, Type.GAUGE)
        return Gauge(name, metric.help, metric.labels, registry=self._registry)

    def _histogram(self, name: str) -> Histogram:
        metric = _row(name, Type.HISTOGRAM)
        return Histogram(name, metric.help, metric.labels, registry=self._registry, buckets=metric.buckets)

    @staticmethod
    def _labelled(instrument: _Instrument, values: Iterable[str]) -> _Instrument:
        for value in values:
            instrument.labels(value)
        return instrument


def _row(name: str, type_: Type) -> Metric:
    metric = ROWS[name]
    if metric.type != type_:
        raise TypeError(f"{name} is a {metric.type} in the table, not a {type_}")
    return metric
