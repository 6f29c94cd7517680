"""The command line of `nablad`."""

import logging
import sys
from importlib.metadata import version

import click

from nablad.cli.group import SentenceGroup
from service.settings import Settings, setting_options

__all__ = ["main"]


@click.group(cls=SentenceGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("nablad"), prog_name="nablad")
def main() -> None:
    """The training service. Clients use the command `nabla`."""


@main.command(short_help="Run the service until it is told to stop.")
@setting_options
def serve(**options: object) -> None:
    """Run the service until SIGTERM or Ctrl-C.

    Every option can also be given in the environment, as NABLAD_ADDRESS for --address. When the service is ready, it
    says so on standard output with the addresses it listens on; its log goes to standard error.
    """
    settings = Settings(**options)  # type: ignore[arg-type]
    logging.basicConfig(
        stream=sys.stderr, level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # Here, because importing Ray takes a second for which --help need not wait.
    from service.daemon import StartError  # noqa: PLC0415
    from service.daemon import serve as run  # noqa: PLC0415

    try:
        run(settings)
    except StartError as error:
        raise click.ClickException(str(error)) from error
