"""Waiting for an end."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from workers.runtime.concurrency import on_thread, run_to_its_end


async def test_who_is_cancelled_waits_for_the_end_however_often_it_happens() -> None:
    """A thread goes on whatever becomes of its task; nobody may clean up behind it before it has ended."""
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


@pytest.mark.parametrize("moment", ["entering", "inside", "error", "leaving", "none"])
async def test_who_enters_a_context_on_a_thread_leaves_it_there(moment: str) -> None:
    """Whenever it is cancelled, and when something is raised: the context is told, and none of it runs on the loop."""
    told: list[str] = []
    threads: set[int] = set()
    at, go = threading.Event(), threading.Event()

    def reach(here: str) -> None:
        threads.add(threading.get_ident())
        if here == moment:
            at.set()
            go.wait(10)

    @contextmanager
    def context() -> Iterator[int]:
        reach("entering")
        try:
            yield 7
        except BaseException as error:
            reach("leaving badly")
            told.append(type(error).__name__)
            raise
        reach("leaving")
        told.append("well")

    async def use() -> None:
        async with on_thread(context()) as value:
            assert value == 7
            if moment == "inside":
                at.set()
                await asyncio.Event().wait()
            if moment == "error":
                raise ZeroDivisionError

    task = asyncio.create_task(use())
    if moment in ("entering", "inside", "leaving"):
        await asyncio.to_thread(at.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        go.set()
    await asyncio.wait([task])
    assert task.cancelled() == (moment in ("entering", "inside", "leaving"))
    assert task.cancelled() or isinstance(task.exception(), ZeroDivisionError) == (moment == "error")
    expected = {"entering": "CancelledError", "inside": "CancelledError", "error": "ZeroDivisionError"}
    assert told == [expected.get(moment, "well")]
    assert threading.get_ident() not in threads
