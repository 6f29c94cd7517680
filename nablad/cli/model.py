"""`nabla model`: list, export and delete models, and predict with them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nablad.cli.metrics import MEASURES, cells, headings
from nablad.cli.output import json_line, moment, print_json_array, print_table, share, size
from nablad.cli.settings import Settings, data_options, output_option

if TYPE_CHECKING:
    from nablad.v1 import models_pb2

# Of the training only what was minimised: how good a model is is seen in rows that it has not learned from.
_MEASURES = [(rows, metric) for rows, metric in MEASURES if rows == "validation" or metric.name == "cost"]
_COLUMNS = ("MODEL", "LAYERS", "EPOCH", *headings(_MEASURES), "SIZE", "CREATED")


@click.group()
def model() -> None:
    """Manage and use trained models."""


@model.command("list")
@output_option
@click.pass_obj
def list_models(settings: Settings, output: str) -> None:
    """List models, the newest first.

    Costs and accuracies are those of the epoch whose weights the model has: the best epoch if the job kept it, else
    the last one.
    """
    with settings.connect() as client:
        if output == "json":
            print_json_array(client.models())
        else:
            print_table(_COLUMNS, map(_row, client.models()))


@model.command()
@click.argument("model_id", metavar="ID")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace an existing FILE.")
@click.pass_obj
def export(settings: Settings, model_id: str, file: Path | None, overwrite: bool) -> None:
    """Write a model to FILE, whose ending names the format: .safetensors.

    FILE may be a folder; its default is the current one. In a folder, the file is named ID.safetensors.
    """
    with settings.connect() as client:
        written = client.export_model(model_id, file or Path(), overwrite=overwrite)
    click.echo(f"{written}: {size(written.stat().st_size)}")


@model.command()
@click.argument("model_id", metavar="ID")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--limit", type=click.IntRange(min=0), metavar="N", help="Print only the predictions for the first N rows."
)
@data_options
@output_option
@click.pass_obj
def predict(
    settings: Settings, /, model_id: str, files: tuple[str, ...], limit: int | None, output: str, **reading: Any
) -> None:
    """Predict for each row of FILE..., and compare with its targets if there are some.

    FILE... holds features, or features and targets to compare with, in the formats of `nabla dataset add`. With -o
    json, each line is one object.
    """
    show = _print_as_json if output == "json" else _print_as_text
    with settings.connect() as client, client.predict(model_id, files, **reading) as run:
        for row, prediction in enumerate(run):
            if limit is None or row < limit:
                show(row, prediction)
        if run.comparison is not None and output == "json":
            click.echo(f'{{"comparison": {json_line(run.comparison)}}}')
        elif run.comparison is not None:
            click.echo(_comparison(run.comparison))


@model.command()
@click.argument("model_id", metavar="ID")
@click.pass_obj
def delete(settings: Settings, model_id: str) -> None:
    """Delete a model."""
    with settings.connect() as client:
        client.delete_model(model_id)
    click.echo(f"Model {model_id} is deleted.")


def _row(found: "models_pb2.Model") -> tuple[str, ...]:
    if found.damage:
        return (found.model_id, "damaged", *[""] * (len(_COLUMNS) - 2))
    which = "best" if found.spec.training.stopping.keep_best else "last"
    return (
        found.model_id,
        "-".join(map(str, found.spec.model.layers)),
        f"{found.epoch} ({which})" if found.epoch else which,
        *cells(found, _MEASURES),
        size(found.size_bytes),
        moment(found.create_time),
    )


def _print_as_json(_row: int, prediction: "models_pb2.Prediction") -> None:
    click.echo(f'{{"prediction": {json_line(prediction)}}}')


def _print_as_text(row: int, prediction: "models_pb2.Prediction") -> None:
    """Prints row, label if there is one, and activities of the output layer."""
    label = f"{prediction.label:>6}" if prediction.HasField("label") else ""
    click.echo(f"{row:>8}{label}  {' '.join(f'{output:.4g}' for output in prediction.outputs)}")


def _comparison(found: "models_pb2.Comparison") -> str:
    accuracy = share(found, "accuracy")
    return f"{found.rows:,} rows: cost {found.cost:.4g}" + (f", accuracy {accuracy}" if accuracy else "")
