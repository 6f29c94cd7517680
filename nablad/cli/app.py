"""The root of `nabla`: what all of its commands share."""

import errno
from typing import Any

import click

from nablad.address import ADDRESS_VARIABLE, DEFAULT_ADDRESS
from nablad.cli.checkpoint import checkpoint
from nablad.cli.dataset import dataset
from nablad.cli.demo import demo
from nablad.cli.exits import MEANINGS, EndError, ExitCode, end_of
from nablad.cli.job import job
from nablad.cli.model import model
from nablad.cli.settings import Settings
from nablad.errors import NablaError

_EXIT_CODES = "\b\nExit codes:\n" + "\n".join(f"  {code.value:>3}  {meaning}" for code, meaning in MEANINGS.items())


class SentenceGroup(click.Group):
    """Commands whose errors end in sentences and an exit code, and never in a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command that was asked for."""
        try:
            return super().invoke(ctx)
        except EndError as end:
            _end(ctx, end)
        except NablaError as error:
            _end(ctx, end_of(error))
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # click ends quietly then: nobody reads any more
            _end(ctx, end_of(error))
        except KeyboardInterrupt:
            _end(ctx, EndError("Interrupted.", ExitCode.INTERRUPTED))


def _end(ctx: click.Context, end: EndError) -> None:
    click.echo(f"Error: {end}", err=True)
    ctx.exit(end.exit_code)


@click.group(cls=SentenceGroup, epilog=_EXIT_CODES)
@click.option(
    "--server", metavar="ADDRESS", help=f"Host or host:port of the service; {ADDRESS_VARIABLE}, else {DEFAULT_ADDRESS}."
)
@click.version_option(package_name="nablad", prog_name="nabla", message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context, server: str | None) -> None:
    """Trains multi-layer perceptrons on a nablad service."""
    ctx.obj = Settings(server)


for command in (job, checkpoint, dataset, model, demo):
    main.add_command(command)
