"""Output of `nabla`: tables for people, JSON for programs."""

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC
from itertools import accumulate
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp
    from rich.console import Console
    from rich.table import Table

    from nablad.v1 import jobs_pb2

_DIGEST_CHARACTERS = 12  # enough to tell digests apart by eye

# Wide enough for any row: output to a file or pipe is never cut or folded.
_UNBOUNDED_WIDTH = 10_000
_GAP = 2  # between columns


def on_terminal() -> bool:
    """Returns true if standard output is a terminal."""
    return sys.stdout.isatty()


def console() -> "Console":
    """Returns the console for tables: as wide as the terminal, or as any row where there is none."""
    from rich.console import Console  # noqa: PLC0415  # `nabla --help` needs no tables

    return Console(width=None if on_terminal() else _UNBOUNDED_WIDTH, highlight=False, markup=False, emoji=False)


def json_line(message: "Message") -> str:
    """Returns a message as JSON on one line, with the contract's names."""
    return _json(message, None)


def print_json(message: "Message") -> None:
    """Prints a message as a JSON object."""
    click.echo(_json(message, 2))


def print_json_array(messages: "Iterable[Message]") -> None:
    """Prints messages as one JSON array."""
    lines = ",\n".join("  " + json_line(message) for message in messages)
    click.echo(f"[\n{lines}\n]" if lines else "[]")


def _json(message: "Message", indent: int | None) -> str:
    from google.protobuf.json_format import MessageToJson  # noqa: PLC0415  # as above

    return MessageToJson(message, preserving_proto_field_name=True, indent=indent, ensure_ascii=False)


def print_warnings(job: "jobs_pb2.Job") -> None:
    """Prints the warnings of a job on stderr."""
    for warning in job.warnings:
        field = f"{warning.field}: " if warning.field else ""
        click.echo(f"Warning: {field}{warning.message}.", err=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table.

    The first column names the row and is never cut. On a narrow terminal, headings of several words take a line for
    each, and then the last columns are left out.
    """
    screen, kept = console(), list(rows)
    widths = _widths([(column,) for column in columns], kept)
    if sum(widths) + _GAP * (len(widths) - 1) > screen.width:
        widths = _widths([column.split() for column in columns], kept)
    edges = (edge - _GAP for edge in accumulate(width + _GAP for width in widths))
    fitting = max(sum(edge <= screen.width for edge in edges), 1)
    table = _grid()
    for column, width in zip(columns[:fitting], widths, strict=False):
        table.add_column(column, overflow="fold", width=min(width, screen.width))
    for row in kept:
        table.add_row(*row[:fitting])
    screen.print(table)


def _widths(headings: Sequence[Sequence[str]], rows: Sequence[Sequence[str]]) -> list[int]:
    """Returns the width of each column; its heading has these lines."""
    from rich.cells import cell_len  # noqa: PLC0415  # as above

    cells = zip(*rows, strict=True) if rows else [()] * len(headings)
    return [max(map(cell_len, (*heading, *column))) for heading, column in zip(headings, cells, strict=True)]


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Prints the fields of one object, a line for each that is not empty."""
    table = _grid(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        if value:
            table.add_row(name, value)
    console().print(table)


def _grid(*, show_header: bool = True) -> "Table":
    from rich.table import Table  # noqa: PLC0415  # as above

    return Table(box=None, pad_edge=False, show_header=show_header)


def moment(time: "Timestamp") -> str:
    """Returns a time in this machine's time zone; empty if it is not set."""
    return time.ToDatetime(UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S") if time.ByteSize() else ""


def number(message: "Message", field: str) -> str:
    """Returns the number in a field with four digits; empty if it is not set."""
    return f"{getattr(message, field):.4g}" if message.HasField(field) else ""


def share(message: "Message", field: str) -> str:
    """Returns the share in a field as a percentage; empty if it is not set."""
    return f"{getattr(message, field):.2%}" if message.HasField(field) else ""


def digest(sha256: str) -> str:
    """Returns the first characters of a digest in hexadecimal."""
    return sha256[:_DIGEST_CHARACTERS]


def size(size_bytes: int) -> str:
    """Returns a number of bytes with its unit."""
    amount = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
