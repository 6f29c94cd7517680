"""Child process of the daemon: the start, the watch and the end of a cluster process."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from nablad.import_path import child_environment
from service.cluster.errors import ClusterError

__all__ = ["READY", "Child"]

READY: Final = "ready"
"""First line of a cluster process that is ready; any other first line is a sentence that says why there is no Ray."""

# Only the superuser can put modules there, on any host; and the directory cannot be removed.
_DIRECTORY: Final = "/"
# Variables with the path of a file, which may be relative.
_FILES: Final = ("RAY_AUTH_TOKEN_PATH", "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")
_START_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 30.0


class Child:
    """A running cluster process. It ends when its standard input does, and so with the daemon.

    Attributes:
        pid: Its process id.
        end: Task that is done when it has ended; the result says how, as a sentence.
    """

    def __init__(self, process: Process) -> None:
        """Watches a process that is ready."""
        self._process = process
        self.pid = process.pid
        self.end = asyncio.create_task(_watch(process))

    @classmethod
    async def start(cls, command: Sequence[str], secret: str) -> "Child":
        """Starts a cluster process, passes it the secret that calls have to carry, and waits until it is ready.

        Raises:
            ClusterError: The process reported an error, or ended without a message.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=PIPE,
                stdout=PIPE,
                # The processes that it leaves behind are found by their group.
                process_group=0,
                # Ray's workers look for modules in the directory of this process before all others.
                cwd=_DIRECTORY,
                env=_environment(),
            )
        except OSError as error:
            raise ClusterError(f"the process that speaks to Ray cannot be started: {error}") from error
        try:
            _send_secret(process, secret)
            await _require_ready(process)
        except BaseException:
            _kill(process)
            await asyncio.shield(process.wait())
            _kill_group(process)
            raise
        return cls(process)

    async def stop(self) -> None:
        """Ends the process in order; kills it after half a minute."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        done, _ = await asyncio.wait([self.end], timeout=_STOP_SECONDS)
        if not done:
            self.kill()
            await self.end

    def kill(self) -> None:
        """Kills the process, and an embedded Ray with it."""
        _kill(self._process)


def _environment() -> dict[str, str]:
    """Returns the environment of this process, with relative paths of files made absolute."""
    files = {name: os.path.abspath(os.environ[name]) for name in _FILES if os.environ.get(name)}  # noqa: PTH100
    return child_environment({**os.environ, **files}, sys.path)


def _send_secret(process: Process, secret: str) -> None:
    """Writes the secret to the standard input, which others cannot read and Ray's processes do not inherit."""
    assert process.stdin is not None  # noqa: S101 (a pipe was asked for)
    process.stdin.write(f"{secret}\n".encode())


async def _require_ready(process: Process) -> None:
    assert process.stdout is not None  # noqa: S101 (a pipe was asked for)
    try:
        async with asyncio.timeout(_START_SECONDS):
            line = (await process.stdout.readline()).decode().strip()
    except TimeoutError as error:
        raise ClusterError(f"Ray was not there within {_START_SECONDS:.0f} s") from error
    if not line:
        ending = _describe_exit(await process.wait())
        raise ClusterError(f"the process that speaks to Ray {ending} before it was ready")
    if line != READY:
        raise ClusterError(line)


async def _watch(process: Process) -> str:
    """Waits for the end of the process; returns its last line, or how it ended if it wrote none."""
    assert process.stdout is not None  # noqa: S101 (a pipe was asked for)
    lines = [line.decode().strip() async for line in process.stdout]
    code = await process.wait()
    _kill_group(process)
    return lines[-1] if lines else f"the process that speaks to it {_describe_exit(code)}"


def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()


def _kill_group(process: Process) -> None:
    """Kills Ray's processes, because some of them would end by themselves only after a minute."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _describe_exit(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
