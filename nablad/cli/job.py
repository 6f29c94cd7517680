"""`nabla job`: submit, list, get, watch, cancel, delete."""

from typing import TYPE_CHECKING, BinaryIO

import click

from nablad.cli.output import moment, number, print_fields, print_json, print_json_array, print_table, share
from nablad.cli.settings import Settings, output_option

if TYPE_CHECKING:
    from nablad.v1 import jobs_pb2

# Named here as well as in the contract, which is slow to import.
STATES = ("queued", "starting", "running", "succeeded", "failed", "cancelled")


@click.group()
def job() -> None:
    """Submit jobs, look at them, end them."""


@job.command()
@click.argument("file", type=click.File("rb"))
@click.option("--watch", is_flag=True, help="Look on until the job has ended.")
@click.option("--request-id", metavar="ID", help="Makes it safe to repeat the command: the same id, the same job.")
@output_option
@click.pass_context
def submit(ctx: click.Context, file: BinaryIO, watch: bool, request_id: str | None, output: str) -> None:
    """Queue the job that FILE describes, in YAML or JSON; - reads it from stdin."""
    from nablad.cli.submitting import read_job_file  # noqa: PLC0415  # slow to import, as all that needs the contract
    from nablad.cli.watching import watch_job  # noqa: PLC0415  # as above

    settings: Settings = ctx.obj
    with settings.connect() as client:
        created = client.submit(read_job_file(file, client), request_id=request_id)
        if watch:
            ctx.exit(watch_job(client, settings, created.job_id, 1, output))
    if output == "json":
        print_json(created)
    else:
        click.echo(f"Job {created.job_id} is queued. To look on:")
        click.echo(f"  {settings.command(f'job watch {created.job_id}')}")


@job.command("list")
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Only these; may be repeated.")
@output_option
@click.pass_obj
def list_jobs(settings: Settings, states: tuple[str, ...], output: str) -> None:
    """List jobs, the newest first."""
    from nablad.v1 import jobs_pb2  # noqa: PLC0415  # as above

    with settings.connect() as client:
        jobs = client.jobs([jobs_pb2.JobState.Value(f"JOB_STATE_{state.upper()}") for state in states])
        if output == "json":
            print_json_array(jobs)
        else:
            print_table(("JOB", "STATE", "EPOCH", "COST", "ACCURACY", "CREATED"), map(_row, jobs))


@job.command()
@click.argument("job_id", metavar="ID")
@output_option
@click.pass_obj
def get(settings: Settings, job_id: str, output: str) -> None:
    """Show one job."""
    with settings.connect() as client:
        found = client.job(job_id)
    if output == "json":
        print_json(found)
    else:
        _print_job(found)


@job.command()
@click.argument("job_id", metavar="ID")
@click.option("--from-event", type=click.IntRange(min=1), default=1, metavar="N", help="Number of the first event.")
@output_option
@click.pass_context
def watch(ctx: click.Context, job_id: str, from_event: int, output: str) -> None:
    """Look on until a job has ended; Ctrl-C only stops looking."""
    from nablad.cli.watching import watch_job  # noqa: PLC0415  # as above

    with ctx.obj.connect() as client:
        ctx.exit(watch_job(client, ctx.obj, job_id, from_event, output))


@job.command()
@click.argument("job_id", metavar="ID")
@output_option
@click.pass_obj
def cancel(settings: Settings, job_id: str, output: str) -> None:
    """End a job that has not ended yet."""
    with settings.connect() as client:
        cancelled = client.cancel(job_id)
    if output == "json":
        print_json(cancelled)
    else:
        click.echo(f"Job {job_id}: {cancelled.reason}")


@job.command()
@click.argument("job_id", metavar="ID")
@click.pass_obj
def delete(settings: Settings, job_id: str) -> None:
    """Forget a job that has ended; its model stays."""
    with settings.connect() as client:
        client.delete_job(job_id)
    click.echo(f"Job {job_id} is deleted.")


def _state(found: "jobs_pb2.Job") -> str:
    from nablad.spec.names import name_of  # noqa: PLC0415  # as above
    from nablad.v1 import jobs_pb2  # noqa: PLC0415  # as above

    return name_of(jobs_pb2.JobState.DESCRIPTOR, found.state)


def _row(found: "jobs_pb2.Job") -> tuple[str, ...]:
    progress = found.progress
    return (
        found.job_id,
        _state(found),
        f"{progress.epoch}/{found.spec.training.epochs}",
        *_cost_and_accuracy(progress),
        moment(found.create_time),
    )


def _cost_and_accuracy(progress: "jobs_pb2.Progress") -> tuple[str, str]:
    """On the validation rows where there are some, else on those trained with."""
    kind = "validation" if progress.HasField("validation_cost") else "training"
    return number(progress, f"{kind}_cost"), share(progress, f"{kind}_accuracy")


def _print_job(found: "jobs_pb2.Job") -> None:
    from nablad.cli.progress import figures, position  # noqa: PLC0415  # as above
    from nablad.spec import to_yaml  # noqa: PLC0415  # as above

    started = found.HasField("progress")
    print_fields(
        [
            ("job", found.job_id),
            ("state", _state(found)),
            ("reason", found.reason),
            ("created", moment(found.create_time)),
            ("started", moment(found.start_time)),
            ("ended", moment(found.end_time)),
            ("attempt", str(found.attempt or "")),
            ("progress", position(found.progress) if started else ""),
            ("figures", figures(found.progress) if started else ""),
            ("model", found.model_id),
        ]
    )
    click.echo(f"\n{to_yaml(found.spec)}", nl=False)
