"""Waiting with an end, and for an end."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

__all__ = ["run_to_its_end", "wait_for_event"]

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


async def wait_for_event(event: asyncio.Event, seconds: float) -> None:
    """Returns when the event is set, or after some seconds."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


async def run_to_its_end(
    function: Callable[_Arguments, _Result], *arguments: _Arguments.args, **options: _Arguments.kwargs
) -> _Result:
    """Runs a function on another thread. Who is cancelled meanwhile waits for its end, and is cancelled then."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *arguments, **options))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            # However often: half of it must not go on behind the caller's back.
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        raise
