"""Waiting with an end."""

import asyncio

__all__ = ["wait_for_event"]


async def wait_for_event(event: asyncio.Event, seconds: float) -> None:
    """Returns when the event is set, or after some seconds."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
