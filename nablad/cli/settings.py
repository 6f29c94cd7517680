"""Options that several commands of `nabla` share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from nablad.client import Client

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _output_option(*forms: str) -> Callable[[_Command], _Command]:
    return click.option(
        "-o",
        "--output",
        type=click.Choice(forms),
        default=forms[0],
        show_default=True,
        help="Output format.",
    )


output_option = _output_option("table", "json")
output_or_csv_option = _output_option("table", "csv", "json")
request_id_option = click.option(
    "--request-id", metavar="ID", help="Make the command safe to repeat: the same ID returns the same job."
)


@dataclass(frozen=True)
class Settings:
    """The options of `nabla` itself.

    Attributes:
        server: Address of the service, if it was given.
    """

    server: str | None

    def connect(self) -> "Client":
        """Returns a client of the service."""
        from nablad.client import Client  # noqa: PLC0415  # gRPC takes longer to import than `nabla --help` to run

        return Client(self.server)

    def command(self, arguments: str) -> str:
        """Returns the command line that runs `nabla` with ``arguments`` on the same service."""
        return f"nabla --server {self.server} {arguments}" if self.server else f"nabla {arguments}"


def data_options(command: _Command) -> _Command:
    """Adds the options for reading data files, named like the arguments of `Client.add_dataset`."""
    for option in (_classes, _target_kind, _target_column):
        command = option(command)
    return command


def _kind_of(_context: click.Context, _option: click.Parameter, name: str | None) -> int:
    from nablad.v1 import datasets_pb2  # noqa: PLC0415  # see above

    return datasets_pb2.TargetKind.Value(f"TARGET_KIND_{(name or 'unspecified').upper()}")


_target_column = click.option(
    "--target",
    "target_column",
    default="",
    metavar="COLUMN",
    help="CSV: name or number (from 0) of the column with the targets. Default: the last one.",
)
_target_kind = click.option(
    "--targets",
    "target_kind",
    type=click.Choice(["labels", "values"]),
    callback=_kind_of,
    help="Kind of the targets. Default: labels if they are whole numbers, else values.",
)
_classes = click.option(
    "--classes",
    type=click.IntRange(min=0, max=2**32 - 1),
    default=0,
    metavar="N",
    help="Number of classes, if the labels do not show all of them.",
)
