"""`nabla job history`: the metrics of a job over its epochs or steps."""

import csv
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from nablad.cli.output import digest, moment, number, print_json_array, print_table, share
from nablad.cli.settings import Settings, output_or_csv_option

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from nablad.v1 import jobs_pb2

_EPOCH_COLUMNS = (
    "EPOCH",
    "STEP",
    "TIME",
    "TRAINING COST",
    "VALIDATION COST",
    "TRAINING ACCURACY",
    "VALIDATION ACCURACY",
    "SAMPLES/S",
    "WEIGHTS",
)
_STEP_COLUMNS = ("STEP", "EPOCH", "TIME", "TRAINING COST", "TRAINING ACCURACY", "LEARNING RATE", "GRADIENT NORM")


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--steps", is_flag=True, help="Show at most 1000 steps, evenly spread, instead of the epochs.")
@output_or_csv_option
@click.pass_obj
def history(settings: Settings, job_id: str, steps: bool, output: str) -> None:
    """Show the metrics of a job's epochs.

    Cost and accuracy of a step are those of its mini-batch, before the update. With -o csv and -o json, numbers have
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
        f"{point.training_cost:.4g}",
        number(point, "validation_cost"),
        share(point, "training_accuracy"),
        share(point, "validation_accuracy"),
        f"{point.samples_per_second:,.0f}",
        digest(point.weights_sha256),
    )


def _step_row(point: "jobs_pb2.HistoryPoint") -> tuple[str, ...]:
    return (
        str(point.step),
        str(point.epoch),
        moment(point.time),
        f"{point.training_cost:.4g}",
        share(point, "training_accuracy"),
        f"{point.learning_rate:.4g}",
        number(point, "gradient_norm"),
    )


def _print_csv(points: "Iterable[jobs_pb2.HistoryPoint]") -> None:
    """Prints all fields of the contract, under their names; what is not known is empty."""
    from nablad.v1 import jobs_pb2  # noqa: PLC0415  # slow to import

    names = [field.name for field in jobs_pb2.HistoryPoint.DESCRIPTOR.fields]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(point, name) for name in names] for point in points)


def _cell(point: "Message", name: str) -> str:
    """A field with all of its digits."""
    field, value = point.DESCRIPTOR.fields_by_name[name], getattr(point, name)
    if field.has_presence and not point.HasField(name):
        return ""
    if field.message_type is not None:
        return str(value.ToJsonString())
    # Only of epochs is it known how fast they were.
    return "" if name == "samples_per_second" and not value else str(value)
