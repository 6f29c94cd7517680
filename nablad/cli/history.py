"""`nabla job history`: the metrics of a job over its epochs or steps."""

import csv
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from nablad.cli.metrics import MEASURES, cells, headings
from nablad.cli.output import digest, moment, number, print_json_array, print_table
from nablad.cli.settings import Settings, output_or_csv_option
from nablad.learning_metrics import LEARNING_METRICS, ROW_SETS

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from nablad.v1 import jobs_pb2

_EPOCH_COLUMNS = (
    "EPOCH",
    "STEP",
    "TIME",
    *headings(MEASURES),
    "SAMPLES/S",
    "WEIGHTS",
)
_STEP_MEASURES = [(rows, metric) for rows, metric in MEASURES if rows == "training"]
_STEP_COLUMNS = ("STEP", "EPOCH", "TIME", *headings(_STEP_MEASURES), "LEARNING RATE", "GRADIENT NORM")


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--steps", is_flag=True, help="Show at most 1000 steps, evenly spread, instead of the epochs.")
@output_or_csv_option
@click.pass_obj
def history(settings: Settings, job_id: str, steps: bool, output: str) -> None:
    """Show the metrics of a job's epochs.

    The metrics of a step are those of its mini-batch, before the update. With -o csv and -o json, numbers have
    all their digits.
    """
    with settings.connect() as client:
        points = client.history(job_id, steps=steps)
        if output == "json":
            print_json_array(points)
        elif output == "csv":
            _print_csv(points)
        elif steps:
            print_table(_STEP_COLUMNS, map(_step_row, points))
        else:
            print_table(_EPOCH_COLUMNS, map(_epoch_row, points))


def _epoch_row(point: "jobs_pb2.HistoryPoint") -> tuple[str, ...]:
    return (
        str(point.epoch),
        str(point.step),
        moment(point.time),
        *cells(point, MEASURES),
        f"{point.samples_per_second:,.0f}",
        digest(point.weights_sha256),
    )


def _step_row(point: "jobs_pb2.HistoryPoint") -> tuple[str, ...]:
    return (
        str(point.step),
        str(point.epoch),
        moment(point.time),
        *cells(point, _STEP_MEASURES),
        f"{point.learning_rate:.4g}",
        number(point, "gradient_norm"),
    )


def _print_csv(points: "Iterable[jobs_pb2.HistoryPoint]") -> None:
    """Prints all fields of the contract, under their names; what is not known is empty.

    Metrics have a column each, such as ``training_cost``.
    """
    from nablad.v1 import jobs_pb2  # noqa: PLC0415  # slow to import

    metrics = [metric.name for metric in LEARNING_METRICS]
    columns = [
        (field.name, metric)
        for field in jobs_pb2.HistoryPoint.DESCRIPTOR.fields
        for metric in (metrics if field.name in ROW_SETS else [""])
    ]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(f"{name}_{metric}" if metric else name for name, metric in columns)
    for point in points:
        writer.writerow(
            _cell(getattr(point, name), metric) if metric else _cell(point, name) for name, metric in columns
        )


def _cell(message: "Message", name: str) -> str:
    """A field with all of its digits."""
    field, value = message.DESCRIPTOR.fields_by_name[name], getattr(message, name)
    if field.has_presence and not message.HasField(name):
        return ""
    if field.message_type is not None:
        return str(value.ToJsonString())
    # Only of epochs is it known how fast they were.
    return "" if name == "samples_per_second" and not value else str(value)
