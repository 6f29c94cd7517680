"""Waiting for an end."""

import asyncio
import threading

import pytest

from service.waiting import run_to_its_end


def test_who_is_cancelled_waits_for_the_end_however_often_it_happens() -> None:
    """A thread goes on whatever becomes of its task; nobody may clean up behind it before it has ended."""

    async def run() -> None:
        begun, go, ended = threading.Event(), threading.Event(), threading.Event()

        def work() -> None:
            begun.set()
            go.wait(10)
            ended.set()

        task = asyncio.create_task(run_to_its_end(work))
        await asyncio.to_thread(begun.wait, 10)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    asyncio.run(run())
