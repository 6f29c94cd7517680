"""The command line of `nablad`."""

import logging
import sys
from collections import Counter
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import click

from nablad.cli.exits import SentenceGroup
from service.daemon.settings import DaemonSettings, data_dir_option, setting_options

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
    settings = DaemonSettings(**options)  # type: ignore[arg-type]
    logging.basicConfig(
        stream=sys.stderr, level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # Here, because importing Ray takes a second for which --help need not wait.
    from service.daemon.daemon import serve as run  # noqa: PLC0415
    from service.daemon.startup import StartError  # noqa: PLC0415

    try:
        run(settings)
    except StartError as error:
        raise click.ClickException(str(error)) from error


@main.command(short_help="Look through a data directory for damage.")
@data_dir_option
def check(data_dir: Path) -> None:
    """Look through everything in a data directory that no service uses at the moment.

    Every row of the database, and every data set, model and checkpoint, is read and compared with the digest that it
    was stored with. Each finding is a line that says what is gone or damaged and what to do; a note is harmless.
    Nothing is changed.

    Exit codes: 0 when everything is as it was stored, 1 when something is not, 2 when the directory cannot be looked
    through, for instance because a service uses it or because its disk is full.
    """
    from service.daemon.check import CheckError, DirectoryCheck  # noqa: PLC0415 (slow to import)
    from service.storage.data_directory import DataDirectory, DataDirectoryError  # noqa: PLC0415 (as above)

    if not data_dir.is_dir():
        raise click.UsageError(f"there is no data directory {data_dir}: give another --data-dir")
    try:
        directory = DataDirectory(data_dir, sweep=False)
    except DataDirectoryError as error:
        raise click.UsageError(str(error)) from error
    with closing(directory):
        found, checking = Counter[str](), DirectoryCheck(directory)
        try:
            for finding in checking.run():
                kind = "note" if finding.harmless else "damaged"
                found[kind] += 1
                click.echo(f"{kind}: {finding.sentence}")
        except CheckError as error:
            raise click.UsageError(str(error)) from error
    looked_at = ", ".join(f"{kind} {count:,}" for kind, count in checking.counts.items()) or "nothing else"
    verdict = f"damaged: {found['damaged']:,}" if found["damaged"] else "no damage"
    click.echo(f"nablad check: {verdict}, notes: {found['note']:,}; looked at: {looked_at}")
    if found["damaged"]:
        sys.exit(1)
