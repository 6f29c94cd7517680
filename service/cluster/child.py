"""The cluster process, as the daemon sees it."""

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
"""The first line that it says when it is; any other is a sentence that says why there is no Ray."""

# Nobody but the superuser can put modules there, on whatever host a worker is; and it cannot be removed.
_DIRECTORY: Final = "/"
# Variables with the path of a file, which may be relative.
_FILES: Final = ("RAY_AUTH_TOKEN_PATH", "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")
_START_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 30.0


class Child:
    """A running cluster process. It ends when its standard input does, and so with the daemon.

    Attributes:
        pid: Its process id.
        end: Done when it has ended; how, as a sentence.
    """

    def __init__(self, process: Process) -> None:
        """`process` is ready."""
        self._process = process
        self.pid = process.pid
        self.end = asyncio.create_task(_watch(process))

    @classmethod
    async def start(cls, command: Sequence[str], secret: str) -> "Child":
        """Starts it, tells it the secret that calls have to carry, and waits until it is ready.

        Raises:
            ClusterError: It says why, or ended without a word.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=PIPE,
                stdout=PIPE,
                # So that what it leaves behind can be found.
                process_group=0,
                # Ray's workers look for modules in the directory that this process is in before all others.
                cwd=_DIRECTORY,
                env=_environment(),
            )
        except OSError as error:
            raise ClusterError(f"the process that speaks to Ray cannot be started: {error}") from error
        try:
            _tell(process, secret)
            await _require_ready(process)
        except BaseException:
            _kill(process)
            await asyncio.shield(process.wait())
            _sweep(process)
            raise
        return cls(process)

    async def stop(self) -> None:
        """Ends it in order; kills it if that takes too long."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        done, _ = await asyncio.wait([self.end], timeout=_STOP_SECONDS)
        if not done:
            self.kill()
            await self.end

    def kill(self) -> None:
        """Ends it at once, and an embedded Ray with it."""
        _kill(self._process)


def _environment() -> dict[str, str]:
    """That of this process, for one in another directory."""
    files = {name: os.path.abspath(os.environ[name]) for name in _FILES if os.environ.get(name)}  # noqa: PTH100
    return child_environment({**os.environ, **files}, sys.path)


def _tell(process: Process, secret: str) -> None:
    """On its standard input, where nobody else can read it, and which its own processes do not inherit."""
    assert process.stdin is not None  # noqa: S101 (a pipe was asked for)
    process.stdin.write(f"{secret}\n".encode())


async def _require_ready(process: Process) -> None:
    assert process.stdout is not None  # noqa: S101 (a pipe was asked for)
    try:
        async with asyncio.timeout(_START_SECONDS):
            said = (await process.stdout.readline()).decode().strip()
    except TimeoutError as error:
        raise ClusterError(f"Ray was not there within {_START_SECONDS:.0f} s") from error
    if not said:
        raise ClusterError(f"the process that speaks to Ray {_ending(await process.wait())} before it was ready")
    if said != READY:
        raise ClusterError(said)


async def _watch(process: Process) -> str:
    assert process.stdout is not None  # noqa: S101 (a pipe was asked for)
    said = [line.decode().strip() async for line in process.stdout]
    code = await process.wait()
    _sweep(process)
    return said[-1] if said else f"the process that speaks to it {_ending(code)}"


def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()


def _sweep(process: Process) -> None:
    """Ray's processes would end by themselves, but some of them only after a minute."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _ending(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
