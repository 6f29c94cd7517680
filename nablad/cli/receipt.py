"""`nabla job` receipt and verify: the origin of a result, and its repetition."""

from typing import TYPE_CHECKING

import click

from nablad.cli.exits import ExitCode
from nablad.cli.output import print_fields, print_json, print_table, print_warnings
from nablad.cli.settings import Settings, output_option, request_id_option

if TYPE_CHECKING:
    from nablad.client import Client
    from nablad.v1 import jobs_pb2


@click.command()
@click.argument("job_id", metavar="ID")
@output_option
@click.pass_obj
def receipt(settings: Settings, job_id: str, output: str) -> None:
    """Show the receipt of a job that has succeeded: what its result can be traced to.

    All digests are SHA-256, in hexadecimal.
    """
    with settings.connect() as client:
        found = client.receipt(job_id)
    if output == "json":
        print_json(found)
        return
    print_fields(_fields(found))
    click.echo()
    epochs = enumerate(found.epoch_weights_sha256, start=1)
    print_table(("EPOCH", "WEIGHTS"), ((str(epoch), sha256) for epoch, sha256 in epochs))


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--no-watch", is_flag=True, help="Queue the verification without watching it.")
@request_id_option
@output_option
@click.pass_context
def verify(ctx: click.Context, job_id: str, no_watch: bool, request_id: str | None, output: str) -> None:
    """Run a job again and compare the weights after each epoch with its receipt.

    The exit code is that of a job that succeeded if no weights differ, else that of one that failed.
    """
    settings: Settings = ctx.obj
    with settings.connect() as client:
        again = client.verify(job_id, request_id=request_id)
        print_warnings(again)
        if not no_watch:
            ctx.exit(_watch_verification(client, settings, again, output))
    if output == "json":
        print_json(again)
    else:
        click.echo(f"Job {again.job_id} is queued to run job {job_id} again. To watch it:")
        click.echo(f"  {settings.command(f'job watch {again.job_id}')}")


def _watch_verification(client: "Client", settings: Settings, again: "jobs_pb2.Job", output: str) -> ExitCode:
    """Watches the verification; then prints its result, which programs have from the last event."""
    from nablad.cli.watching import watch_job  # noqa: PLC0415  # slow to import

    ending = watch_job(client, settings, again.job_id, 1, output)
    if output != "json" and ending is ExitCode.SUCCESS:
        click.echo(f"Verified: none of the weights differ from those in the receipt of job {again.verifies}.")
    elif output != "json" and ending is ExitCode.JOB_FAILED:
        click.echo(f"Not verified: {client.job(again.job_id).reason}")
    return ending


def _cores(found: "jobs_pb2.Receipt") -> str:
    """Returns which step cores made the steps; empty in receipts of earlier releases."""
    from nablad.v1 import job_spec_pb2  # noqa: PLC0415  # slow to import

    names = {job_spec_pb2.STEP_CORE_NATIVE: "C (native step core)", job_spec_pb2.STEP_CORE_PYTHON: "Python"}
    made = " and ".join(names[core] for core in found.step_cores if core in names)
    return made and f"{made}; both cores give the same bits"


def _policy(found: "jobs_pb2.Receipt") -> str:
    """Returns the policy with its parameters; empty in receipts of earlier releases."""
    from nablad.jobspec import name_of  # noqa: PLC0415  # slow to import
    from nablad.v1 import job_spec_pb2  # noqa: PLC0415  # slow to import

    policy = found.policy
    name = name_of(job_spec_pb2.Policy.DESCRIPTOR, policy.name) if policy.name else ""
    parameters = (f"{field.name} {value}" for field, value in policy.ListFields() if field.name != "name")
    return ", ".join((name, *parameters))


def _dropped(found: "jobs_pb2.Receipt") -> str:
    if not found.HasField("dropped_micro_batches"):
        return ""
    return f"{found.dropped_micro_batches:,} micro-batches with {found.dropped_samples:,} samples"


def _fields(found: "jobs_pb2.Receipt") -> list[tuple[str, str]]:
    return [
        ("job", found.job_id),
        ("ending", found.ending),
        ("steps", str(found.steps)),
        ("attempts", str(found.attempts)),
        ("policy", _policy(found)),
        ("promise", found.promise),
        ("dropped", _dropped(found)),
        ("code", f"nablad {found.code_version}"),
        *(("computed by", f"{each.cpu}; {each.blas}; numpy {each.numpy}") for each in found.arithmetics),
        ("steps made in", _cores(found)),
        ("spec", found.spec_sha256),
        ("train data", found.train_sha256),
        ("validation data", found.validation_sha256),
        ("first weights", found.first_weights_sha256),
        ("final weights", found.final_weights_sha256),
    ]
