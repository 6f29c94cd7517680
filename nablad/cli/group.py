"""The outermost frame of a command line: every end of a command is a sentence and an exit code, never a traceback."""

import errno
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import click

from nablad.cli.exits import EndError, ExitCode, end_of
from nablad.errors import NablaError

__all__ = ["SentenceGroup", "interrupted_once"]

_SAME_INTERRUPT_SECONDS = 1.0
_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
# Files are read and written by name (`nablad.files.naming`): an error of this kind without one is of a stream.
_FAILED_WRITES = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF, errno.EIO})


class SentenceGroup(click.Group):
    """Commands whose errors end in sentences and an exit code, whatever arguments, files and streams they are given."""

    def main(self, args: Any = None, *arguments: Any, **options: Any) -> Any:
        """Runs the command line; see click."""
        _prepare_streams()
        given = sys.argv[1:] if args is None else list(args)
        try:
            try:
                _check_arguments(given)
                return super().main(given, *arguments, **options)
            finally:
                _flush_output()
        except EndError as end:
            sys.exit(_say(end))
        except OSError as error:  # of a stream, or of one that click writes its own messages to
            sys.exit(_end_of_stream(error))

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command that was asked for."""
        try:
            return super().invoke(ctx)
        except EndError as end:
            ctx.exit(_say(end))
        except NablaError as error:
            ctx.exit(_say(end_of(error)))
        except UnicodeEncodeError as error:
            ctx.exit(_say(_not_text(error.object)))
        except OSError as error:
            if error.filename is None:
                raise  # of a stream: `main` knows what to do
            ctx.exit(_say(end_of(error)))
        except KeyboardInterrupt:
            ctx.exit(_say(EndError("Interrupted.", ExitCode.INTERRUPTED)))


@contextmanager
def interrupted_once(clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """Takes an interrupt that follows another one within a second for the same one.

    Wrappers such as `timeout` send theirs to the process and to its group. The second one would come while gRPC ends
    its calls for the first one, which then may wait for ever for a lock of its own.
    """
    last = -_SAME_INTERRUPT_SECONDS

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal last
        before, last = last, clock()
        if last - before >= _SAME_INTERRUPT_SECONDS:
            raise KeyboardInterrupt

    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not ignored, nor taken by somebody else
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _prepare_streams() -> None:
    """Makes standard streams that can be used.

    A closed one becomes the null device, or the next file that is opened would take its number, and with it what is
    printed. What a stream's encoding lacks is written as an escape.
    """
    for name, mode in _STREAMS:
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 (for as long as the process)
            setattr(sys, name, nowhere)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _check_arguments(arguments: list[str]) -> None:
    """Refuses the one character that neither a file's name nor a message's field can hold."""
    for argument in arguments:
        if "\0" in argument:
            raise _not_text(argument)


def _not_text(argument: str) -> EndError:
    shown = ascii(argument if len(argument) <= 80 else f"{argument[:79]}…")
    return EndError(f"got {shown}; allowed: text in UTF-8 without NUL characters", ExitCode.INVALID)


def _say(end: EndError) -> ExitCode:
    """Prints an error, where anybody can read it; how the process ends."""
    with suppress(OSError):
        click.echo(f"Error: {end}", err=True)
    return end.exit_code


def _flush_output() -> None:
    """Raises the OSError of what could not be printed; Python itself would only report it after the end."""
    with suppress(ValueError):  # closed by whoever called
        sys.stdout.flush()


def _end_of_stream(error: OSError) -> ExitCode:
    """Returns the exit code for a stream that failed; drops what is left for it to print."""
    _drop_unwritten()
    if error.errno == errno.EPIPE:
        return ExitCode.REFUSED  # nobody reads any more, as behind `head`
    if error.filename is None and error.errno in _FAILED_WRITES:
        return _say(EndError(f"Standard output cannot be written: {error.strerror}.", ExitCode.INVALID))
    return _say(end_of(error))


def _drop_unwritten() -> None:
    """Drops what the interpreter would try to write once more at its end, and complain about."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())
