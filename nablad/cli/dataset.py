"""`nabla dataset`: add, list and delete data sets."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from nablad.cli.output import moment, on_terminal, print_json, print_json_array, print_table, size
from nablad.cli.settings import Settings, data_options, output_option

if TYPE_CHECKING:
    from nablad.client.uploading import ProgressCallback
    from nablad.v1 import datasets_pb2


@click.group()
def dataset() -> None:
    """Add, list and delete data sets."""


@dataset.command()
@click.argument("name")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@data_options
@output_option
@click.pass_obj
def add(settings: Settings, /, name: str, files: tuple[str, ...], output: str, **reading: Any) -> None:
    """Add the data set in FILE... under NAME.

    FILE is one .npz (arrays x and y) or one .csv, or two files, features and targets, of .npy or IDX; .csv and IDX may
    be gzipped.
    """
    with settings.connect() as client, _upload_bar(output) as progress:
        added = client.add_dataset(name, files, progress=progress, **reading)
    if output == "json":
        print_json(added)
    else:
        click.echo(f"Data set {name}: {added.rows:,} rows, {added.features:,} features, {_targets(added)}.")


@dataset.command("list")
@output_option
@click.pass_obj
def list_datasets(settings: Settings, output: str) -> None:
    """List data sets in the order of their names."""
    with settings.connect() as client:
        if output == "json":
            print_json_array(client.datasets())
        else:
            print_table(
                ("DATA SET", "ROWS", "FEATURES", "TARGETS", "TYPE", "SIZE", "ADDED"), map(_row, client.datasets())
            )


@dataset.command()
@click.argument("name")
@click.pass_obj
def delete(settings: Settings, name: str) -> None:
    """Delete a data set that no unfinished job uses."""
    with settings.connect() as client:
        client.delete_dataset(name)
    click.echo(f"Data set {name} is deleted.")


def _row(found: "datasets_pb2.Dataset") -> tuple[str, ...]:
    if found.damage:
        return (found.name, "damaged", "", "", "", "", "")
    return (
        found.name,
        f"{found.rows:,}",
        f"{found.features:,}",
        _targets(found),
        found.feature_dtype,
        size(found.size_bytes),
        moment(found.create_time),
    )


def _targets(found: "datasets_pb2.Dataset") -> str:
    if found.classes:
        return f"{found.classes:,} classes"
    return f"{found.target_columns:,} value{'s' * (found.target_columns != 1)}"


@contextmanager
def _upload_bar(output: str) -> "Iterator[ProgressCallback | None]":
    """Shows the progress of an upload on a terminal."""
    if output == "json" or not on_terminal():
        yield None
        return
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn  # noqa: PLC0415  # slow to import

    with Progress(*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn(), transient=True) as bar:
        task = bar.add_task("sending", total=None)
        yield lambda sent, total: bar.update(task, completed=sent, total=total)
