"""`nabla job` pause, resume, retry, scale, cancel and delete: commands that change a job."""

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
    """Stop a job's processes after a checkpoint, until the job is resumed."""
    with settings.connect() as client:
        paused = client.pause(job_id)
    _answer(paused, output, f"Job {job_id}: {paused.reason}. To resume it:", settings.command(f"job resume {job_id}"))


@click.command()
@click.argument("job_id", metavar="ID")
@output_option
@click.pass_obj
def resume(settings: Settings, job_id: str, output: str) -> None:
    """Queue a paused job again; it continues exactly where it was."""
    with settings.connect() as client:
        resumed = client.resume(job_id)
    sentence = f"Job {job_id} is queued again and continues where it was. To watch it:"
    _answer(resumed, output, sentence, settings.command(f"job watch {job_id}"))


@click.command()
@click.argument("job_id", metavar="ID")
@output_option
@click.pass_obj
def retry(settings: Settings, job_id: str, output: str) -> None:
    """Queue a failed job again; it continues from its newest checkpoint.

    Says if the job is expected to fail in the same way again.
    """
    with settings.connect() as client:
        retried = client.retry(job_id)
    sentence = (
        f"Job {job_id} is queued again, and continues from its newest checkpoint if it has one ({retried.reason}). "
        "To watch it:"
    )
    _answer(retried, output, sentence, settings.command(f"job watch {job_id}"))


@click.command()
@click.argument("job_id", metavar="ID")
@click.argument("workers", type=click.IntRange(1, MOST_WORKERS))
@output_option
@click.pass_obj
def scale(settings: Settings, job_id: str, workers: int, output: str) -> None:
    """Change a job's number of WORKERS, also while it runs; its result stays the same."""
    with settings.connect() as client:
        scaled = client.scale(job_id, workers)
    _answer(scaled, output, f"Job {job_id} continues with {workers} worker{'s' * (workers != 1)}.")


@click.command()
@click.argument("job_id", metavar="ID")
@output_option
@click.pass_obj
def cancel(settings: Settings, job_id: str, output: str) -> None:
    """Cancel a job that has not ended."""
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
    """Prints warnings, and the job as JSON, or a sentence about it and a command that users may need next."""
    print_warnings(changed)
    if output == "json":
        print_json(changed)
        return
    click.echo(sentence)
    if next_command:
        click.echo(f"  {next_command}")
