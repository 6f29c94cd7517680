"""Concurrency helpers: waits with a time limit, and work on other threads that cancellation does not cut short."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from typing import ParamSpec, TypeVar

__all__ = ["on_thread", "run_to_its_end", "wait_for_event"]

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
    """Runs a function on another thread.

    If the caller is cancelled, waits for the function to finish, then raises CancelledError.
    """
    running = asyncio.ensure_future(asyncio.to_thread(function, *arguments, **options))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            # Cancelled again or not: the function must not go on behind the caller's back.
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        raise


@asynccontextmanager
async def on_thread(context: AbstractContextManager[_Result]) -> AsyncIterator[_Result]:
    """Enters and leaves a context on another thread, each as `run_to_its_end`; once entered it is always left."""
    entered: list[_Result] = []
    try:
        # The append happens on the thread, because a caller that is cancelled meanwhile has entered all the same.
        await run_to_its_end(lambda: entered.append(context.__enter__()))
        yield entered[0]
    except BaseException as error:
        if entered:
            await run_to_its_end(context.__exit__, type(error), error, error.__traceback__)
        raise
    await run_to_its_end(context.__exit__, None, None, None)
