"""`nabla checkpoint`: the checkpoints of a job."""

from typing import TYPE_CHECKING

import click

from nablad.cli.output import digest, moment, print_json_array, print_table, size
from nablad.cli.settings import Settings, output_option

if TYPE_CHECKING:
    from nablad.v1 import jobs_pb2


@click.group()
def checkpoint() -> None:
    """Inspect a job's checkpoints."""


@checkpoint.command("list")
@click.argument("job_id")
@output_option
@click.pass_obj
def list_checkpoints(settings: Settings, job_id: str, output: str) -> None:
    """List a job's checkpoints, the newest first; each is read and compared with its digest."""
    with settings.connect() as client:
        found = client.checkpoints(job_id)
    if output == "json":
        print_json_array(found)
        return
    print_table(("STEP", "EPOCH", "ATTEMPT", "STATE", "WRITTEN", "SIZE", "SHA-256"), map(_row, found))
    for each in found:
        if each.damage:
            click.echo(f"The checkpoint of step {each.step} cannot be used: {each.damage}")


def _row(found: "jobs_pb2.Checkpoint") -> tuple[str, ...]:
    return (
        str(found.step),
        str(found.epoch),
        str(found.attempt),
        "damaged" if found.damage else "ok",
        moment(found.create_time),
        size(found.size_bytes),
        digest(found.sha256),
    )
