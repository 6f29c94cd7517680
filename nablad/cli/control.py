"""`nabla job` pause, resume, retry, scale, cancel, delete: what moves a job along."""

from typing import TYPE_CHECKING

import click

from nablad.cli.output import print_json, print_warnings
from nablad.cli.settings import Settings, output_option

if TYPE_CHECKING:
    from nablad.v1 import jobs_pb2

MOST_WORKERS = 10_000


@click.command()
@click.argument("job_id", metavar="ID")
@output_option
@click.pass_obj
def pause(settings: Settings, job_id: str, output: str) -> None:
    """Take a job's processes from it, after a checkpoint, until it is resumed."""
    with settings.connect() as client:
        paused = client.pause(job_id)
    _answer(paused, output, f"Job {job_id}: {paused.reason}. To go on:", settings.command(f"job resume {job_id}"))


@click.command()
@click.argument("job_id", metavar="ID")
@output_option
@click.pass_obj
def resume(settings: Settings, job_id: str, output: str) -> None:
    """Queue a paused job again; it goes on exactly where it was."""
    with settings.connect() as client:
        resumed = client.resume(job_id)
    sentence = f"Job {job_id} is queued again and goes on where it was. To look on:"
    _answer(resumed, output, sentence, settings.command(f"job watch {job_id}"))


@click.command()
@click.argument("job_id", metavar="ID")
@output_option
@click.pass_obj
def retry(settings: Settings, job_id: str, output: str) -> None:
    """Queue a failed job again; it goes on from its newest checkpoint.

    The answer says if the job must be expected to end in the same way again.
    """
    with settings.connect() as client:
        retried = client.retry(job_id)
    sentence = (
        f"Job {job_id} is queued again, and goes on from its newest checkpoint if it has one ({retried.reason}). "
        "To look on:"
    )
    _answer(retried, output, sentence, settings.command(f"job watch {job_id}"))


@click.command()
@click.argument("job_id", metavar="ID")
@click.argument("workers", type=click.IntRange(1, MOST_WORKERS))
@output_option
@click.pass_obj
def scale(settings: Settings, job_id: str, workers: int, output: str) -> None:
    """Give a job another number of WORKERS, also while it runs; its result stays the same."""
    with settings.connect() as client:
        scaled = client.scale(job_id, workers)
    _answer(scaled, output, f"Job {job_id} goes on with {workers} worker{'s' * (workers != 1)}.")


@click.command()
@click.argument("job_id", metavar="ID")
@output_option
@click.pass_obj
def cancel(settings: Settings, job_id: str, output: str) -> None:
    """End a job that has not ended yet."""
    with settings.connect() as client:
        cancelled = client.cancel(job_id)
    _answer(cancelled, output, f"Job {job_id}: {cancelled.reason}")


@click.command()
@click.argument("job_id", metavar="ID")
@click.pass_obj
def delete(settings: Settings, job_id: str) -> None:
    """Delete a job that has ended, with its history and checkpoints; its model stays."""
    with settings.connect() as client:
        client.delete_job(job_id)
    click.echo(f"Job {job_id} is deleted.")


def _answer(changed: "jobs_pb2.Job", output: str, sentence: str, next_command: str = "") -> None:
    """Prints the job for programs; for people what became of it and what they may want to do next; and warnings."""
    print_warnings(changed)
    if output == "json":
        print_json(changed)
        return
    click.echo(sentence)
    if next_command:
        click.echo(f"  {next_command}")
