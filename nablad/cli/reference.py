"""Generates the page of all commands from their help: ``python -m nablad.cli.reference > docs/cli.md``."""

from collections.abc import Iterator

import click

from nablad.cli.app import main

_PREFACE = """# The command `nabla`

Generated from `nabla --help` by `python -m nablad.cli.reference > docs/cli.md`; a test compares it with the code.
"""


def reference() -> str:
    """Returns the page in Markdown."""
    sections = [f"## `{path}`\n\n```text\n{text}\n```\n" for path, text in _helps(main, "nabla", None)]
    return "\n".join([_PREFACE, *sections])


def _helps(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    """Yields the help of a command and of all its subcommands, each with its command path."""
    context = click.Context(command, info_name=name, parent=parent, terminal_width=100, max_content_width=100)
    yield context.command_path, command.get_help(context)
    for inner, subcommand in getattr(command, "commands", {}).items():
        yield from _helps(subcommand, inner, context)


if __name__ == "__main__":
    click.echo(reference(), nl=False)
