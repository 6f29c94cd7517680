"""The command `nabla`: its options and its groups of commands."""

import click

from nablad.address import ADDRESS_VARIABLE, DEFAULT_ADDRESS
from nablad.cli.checkpoint import checkpoint
from nablad.cli.dataset import dataset
from nablad.cli.demo import demo
from nablad.cli.exits import MEANINGS, SentenceGroup, interrupted_once
from nablad.cli.job import job
from nablad.cli.model import model
from nablad.cli.settings import Settings

_EXIT_CODES = "\b\nExit codes:\n" + "\n".join(f"  {code.value:>3}  {meaning}" for code, meaning in MEANINGS.items())


@click.group(cls=SentenceGroup, epilog=_EXIT_CODES)
@click.option(
    "--server",
    metavar="ADDRESS",
    help=f"Address of the service, host or host:port. Default: {ADDRESS_VARIABLE}, else {DEFAULT_ADDRESS}.",
)
@click.version_option(package_name="nablad", prog_name="nabla", message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context, server: str | None) -> None:
    """Train multi-layer perceptrons on a nablad service."""
    ctx.with_resource(interrupted_once())
    ctx.obj = Settings(server)


for command in (job, checkpoint, dataset, model, demo):
    main.add_command(command)
