"""Ends of a command: exit codes, and the group that turns every error into a sentence and an exit code."""

import errno
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Any

import click

from nablad.errors import InvalidRequestError, NablaError, UnavailableError, mistakes

__all__ = ["MEANINGS", "EndError", "ExitCode", "SentenceGroup", "end_of", "interrupted_once"]

_SAME_INTERRUPT_SECONDS = 1.0
_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
# Errors of files have a filename (`nablad.files.naming`): one of these without it is of a stream.
_FAILED_WRITES = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF, errno.EIO})


class ExitCode(IntEnum):
    """Exit codes of `nabla`."""

    SUCCESS = 0
    REFUSED = 1
    INVALID = 2
    JOB_FAILED = 3
    JOB_CANCELLED = 4
    UNREACHABLE = 5
    INTERRUPTED = 130


MEANINGS: Mapping[ExitCode, str] = {
    ExitCode.SUCCESS: "success",
    ExitCode.REFUSED: "the service refused or failed",
    ExitCode.INVALID: "wrong usage, or an invalid job file, data file or path",
    ExitCode.JOB_FAILED: "the job failed",
    ExitCode.JOB_CANCELLED: "the job was cancelled",
    ExitCode.UNREACHABLE: "the service cannot be reached",
    ExitCode.INTERRUPTED: "interrupted",
}


class EndError(Exception):
    """Ends `nabla` with these sentences on stderr.

    Attributes:
        exit_code: Exit code of the process.
    """

    def __init__(self, sentences: str, exit_code: ExitCode) -> None:
        super().__init__(sentences)
        self.exit_code = exit_code


def end_of(error: NablaError | OSError) -> EndError:
    """Returns the sentences and the exit code for ``error``."""
    if isinstance(error, InvalidRequestError):
        return EndError(mistakes(error.violations) if error.violations else str(error), ExitCode.INVALID)
    if isinstance(error, UnavailableError):
        return EndError(str(error), ExitCode.UNREACHABLE)
    if isinstance(error, OSError):
        sentence = f"{error.strerror}." if error.strerror else str(error)
        return EndError(f"{error.filename}: {sentence}" if error.filename else sentence, ExitCode.INVALID)
    return EndError(str(error), ExitCode.REFUSED)


class SentenceGroup(click.Group):
    """A group of commands that never end with a traceback, whatever arguments, files and streams they are given."""

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
        except OSError as error:  # of a stream, also one of click's own messages
            sys.exit(_end_of_stream(error))

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command that was given."""
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
                raise  # of a stream: `main` handles it
            ctx.exit(_say(end_of(error)))
        except KeyboardInterrupt:
            ctx.exit(_say(EndError("Interrupted.", ExitCode.INTERRUPTED)))


@contextmanager
def interrupted_once(clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """Ignores an interrupt within a second after another one.

    Wrappers such as `timeout` send it to the process and to its group. The second one would come while gRPC ends its
    calls because of the first one, and gRPC may then wait forever for one of its own locks.
    """
    last = -_SAME_INTERRUPT_SECONDS

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal last
        before, last = last, clock()
        if last - before >= _SAME_INTERRUPT_SECONDS:
            raise KeyboardInterrupt

    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # neither ignored nor handled by other code
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _prepare_streams() -> None:
    """Makes the standard streams usable.

    A closed one becomes the null device, because the next opened file would get its number and with it the output.
    Characters that a stream's encoding lacks are written as escapes.
    """
    for name, mode in _STREAMS:
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 (for as long as the process)
            setattr(sys, name, nowhere)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _check_arguments(arguments: list[str]) -> None:
    """Refuses NUL, which neither a file's name nor a message's field can hold."""
    for argument in arguments:
        if "\0" in argument:
            raise _not_text(argument)


def _not_text(argument: str) -> EndError:
    shown = ascii(argument if len(argument) <= 80 else f"{argument[:79]}…")
    return EndError(f"got {shown}; allowed: text in UTF-8 without NUL characters", ExitCode.INVALID)


def _say(end: EndError) -> ExitCode:
    """Prints an error if possible, and returns its exit code."""
    with suppress(OSError):
        click.echo(f"Error: {end}", err=True)
    return end.exit_code


def _flush_output() -> None:
    """Raises the OSError of a failed write, which Python itself would only report at its exit."""
    with suppress(ValueError):  # closed by the caller
        sys.stdout.flush()


def _end_of_stream(error: OSError) -> ExitCode:
    """Returns the exit code for a failed stream, and drops its unwritten output."""
    _drop_unwritten()
    if error.errno == errno.EPIPE:
        return ExitCode.REFUSED  # the reader is gone, as with `| head`
    if error.filename is None and error.errno in _FAILED_WRITES:
        return _say(EndError(f"Standard output cannot be written: {error.strerror}.", ExitCode.INVALID))
    return _say(end_of(error))


def _drop_unwritten() -> None:
    """Drops output that the interpreter would try to write again at its exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())
