"""`nabla job`: submit, list, get and watch; the other commands have modules of their own."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

import click

from nablad.cli.control import cancel, delete, pause, resume, retry, scale
from nablad.cli.history import history
from nablad.cli.output import print_json, print_json_array, print_table, print_warnings
from nablad.cli.receipt import receipt, verify
from nablad.cli.settings import Settings, output_option, request_id_option
from nablad.errors import InvalidRequestError, UnavailableError, Violation
from nablad.files import naming

if TYPE_CHECKING:
    from nablad.client import Client
    from nablad.v1.job_spec_pb2 import JobSpec

# Also in the contract, which is slow to import; a test compares both.
STATES = ("queued", "starting", "running", "paused", "succeeded", "failed", "cancelled")
LOWEST_PRIORITY, HIGHEST_PRIORITY = -1000, 1000
LAST_EVENT = 2**64 - 1


@click.group()
def job() -> None:
    """Submit, inspect, control and delete jobs."""


@job.command()
@click.argument("file", type=click.File("rb"))
@click.option(
    "--priority",
    type=click.IntRange(LOWEST_PRIORITY, HIGHEST_PRIORITY),
    metavar="N",
    help="Override the priority in FILE; the highest starts first. Default: that of FILE, else 0.",
)
@click.option("--watch", is_flag=True, help="Stream the job's events until it finishes.")
@request_id_option
@output_option
@click.pass_context
def submit(
    ctx: click.Context, file: BinaryIO, priority: int | None, watch: bool, request_id: str | None, output: str
) -> None:
    """Queue the job described in FILE, in YAML or JSON; - reads stdin."""
    from nablad.cli.watching import watch_and_advise  # noqa: PLC0415  # slow to import, as all that needs the contract

    settings: Settings = ctx.obj
    with settings.connect() as client:
        created = client.submit(_read_job_file(file, client, priority), request_id=request_id)
        print_warnings(created)
        if watch:
            ctx.exit(watch_and_advise(client, settings, created.job_id, 1, output))
    if output == "json":
        print_json(created)
    else:
        click.echo(f"Job {created.job_id} is queued. To watch it:")
        click.echo(f"  {settings.command(f'job watch {created.job_id}')}")


@job.command("list")
@click.option(
    "--state", "states", type=click.Choice(STATES), multiple=True, help="List only jobs in this state; may be repeated."
)
@output_option
@click.pass_obj
def list_jobs(settings: Settings, states: tuple[str, ...], output: str) -> None:
    """List jobs, the newest first.

    Costs and accuracies are those of the last epoch, also where the model keeps the best epoch.
    """
    from nablad.cli.job_view import COLUMNS, row  # noqa: PLC0415  # as above
    from nablad.v1 import jobs_pb2  # noqa: PLC0415  # as above

    with settings.connect() as client:
        jobs = client.jobs([jobs_pb2.JobState.Value(f"JOB_STATE_{state.upper()}") for state in states])
        if output == "json":
            print_json_array(jobs)
        else:
            print_table(COLUMNS, map(row, jobs))


@job.command()
@click.argument("job_id", metavar="ID")
@output_option
@click.pass_obj
def get(settings: Settings, job_id: str, output: str) -> None:
    """Show a job and its recent events."""
    from nablad.cli.job_view import print_job  # noqa: PLC0415  # as above

    with settings.connect() as client:
        found, events = client.job_with_events(job_id)
    if output == "json":
        print_json(found)
    else:
        print_job(found, events)


@job.command()
@click.argument("job_id", metavar="ID")
@click.option(
    "--from-event",
    type=click.IntRange(1, LAST_EVENT),
    default=1,
    metavar="N",
    help="Number of the first event to show.",
)
@output_option
@click.pass_context
def watch(ctx: click.Context, job_id: str, from_event: int, output: str) -> None:
    """Stream a job's events until it finishes. Ctrl-C detaches; the job keeps running."""
    from nablad.cli.watching import watch_and_advise  # noqa: PLC0415  # as above

    with ctx.obj.connect() as client:
        ctx.exit(watch_and_advise(client, ctx.obj, job_id, from_event, output))


def _read_job_file(file: BinaryIO, client: "Client", priority: int | None) -> "JobSpec":
    """Reads and checks a job file.

    Args:
        file: The job file.
        client: Asked for further violations if there are some.
        priority: Overrides that of the file.

    Raises:
        InvalidRequestError: The spec breaks rules. Carries also what the service finds, so that everything can be
            corrected at once.
    """
    from nablad.jobspec import check, merge  # noqa: PLC0415  # as above
    from nablad.jobspec.job_file import MAXIMUM_BYTES, parse  # noqa: PLC0415  # as above

    with naming(getattr(file, "name", "<stdin>")):
        content = file.read(MAXIMUM_BYTES + 1)
    spec, unread = parse(content)
    if priority is not None:
        spec.priority = priority
    known = check(spec, unread=unread).violations
    if known:
        raise InvalidRequestError("The job file has mistakes.", merge(known, _found_by_service(spec, client)))
    return spec


def _found_by_service(spec: "JobSpec", client: "Client") -> Sequence[Violation]:
    """Returns the violations that the service finds, which also knows its data sets."""
    try:
        client.submit(spec, validate_only=True)
    except InvalidRequestError as error:
        return error.violations
    except UnavailableError as error:
        click.echo(f"{error} So the names of data sets could not be checked.", err=True)
    return ()


for command in (pause, resume, retry, scale, cancel, delete, history, receipt, verify):
    job.add_command(command)
