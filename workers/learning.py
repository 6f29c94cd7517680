"""Conversion of learning metrics and their sums to and from messages."""

from dataclasses import asdict, fields
from functools import cache

from nablad.learning_metrics import LEARNING_METRICS
from nablad.v1 import metrics_pb2 as metrics_pb
from workers.mathematics.sums import SampleSums

__all__ = ["metrics_of", "read_sums", "sums_message", "write_metrics"]


def metrics_of(sums: SampleSums, *, labelled: bool) -> metrics_pb.Metrics:
    """Returns the metrics of these samples.

    Args:
        sums: Sums over the samples.
        labelled: True if the targets are class labels.
    """
    metrics = metrics_pb.Metrics()
    write_metrics(metrics, sums, labelled=labelled)
    return metrics


def write_metrics(metrics: metrics_pb.Metrics, sums: SampleSums, *, labelled: bool) -> None:
    """Writes the metrics of these samples to a message; arguments as of `metrics_of`."""
    for name in _known(labelled):
        value = getattr(sums, name)
        if value is not None:
            setattr(metrics, name, value)


@cache
def _known(labelled: bool) -> tuple[str, ...]:
    """Returns the names of the metrics that there are."""
    return tuple(metric.name for metric in LEARNING_METRICS if labelled or not metric.only_for_labels)


def sums_message(sums: SampleSums) -> metrics_pb.Sums:
    """Returns the message with these sums."""
    return metrics_pb.Sums(**asdict(sums))


def read_sums(message: metrics_pb.Sums) -> SampleSums:
    """Returns the sums of a message."""
    return SampleSums(**{field.name: getattr(message, field.name) for field in fields(SampleSums)})
