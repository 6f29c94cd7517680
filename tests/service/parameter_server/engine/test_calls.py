"""The engine and those who ask it: calls come between two steps, and find it in order to the last."""

import asyncio
import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MakeBench = Callable[..., Any]


def test_a_call_is_made_on_the_thread_of_the_steps(bench: Any) -> None:
    """And what it gives comes back to the loop."""
    thread = bench.call(threading.current_thread)
    assert thread.name == "steps"
    assert thread is not threading.current_thread()


def test_calls_are_made_in_their_order(bench: Any) -> None:
    """However many come at once."""
    made: list[int] = []

    async def call_all() -> list[int]:
        return await asyncio.gather(*(bench.engine.call(lambda n=n: made.append(n) or n) for n in range(100)))

    assert bench.run(call_all()) == made == list(range(100))


def test_what_a_call_raises_is_raised_where_it_was_called_for(bench: Any) -> None:
    """The engine goes on."""

    def fail() -> None:
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        bench.call(fail)
    bench.turn()


def test_who_does_not_wait_for_an_answer_any_more_disturbs_nothing(bench: Any) -> None:
    """A call that was cancelled is made all the same, and those after it are answered."""
    made = []

    async def cancel() -> None:
        call = asyncio.ensure_future(bench.engine.call(lambda: made.append("call")))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])

    with bench.busy():
        bench.run(cancel())
        assert made == []
    bench.turn()
    assert made == ["call"]


def test_calls_after_the_end_are_answered_too(make_bench: MakeBench) -> None:
    """Who asks late is told where the training stood; who comes late is gone at once."""
    bench = make_bench()
    bench.close()
    assert bench.state().progress.steps == 6
    late = bench.peer("late")
    assert bench.gone(late) == ""
    assert not bench.remove(late)
    assert not late.listen()
    assert bench.story() == []
    late.connection.__exit__()


def test_the_state_counts_who_is_there_and_what_all_have_done(bench: Any) -> None:
    """Workers report totals since they joined: the newest of each counts, also of those that are gone."""
    here, there = bench.peer("here"), bench.peer("there", shared=False)
    here.listen()
    here.answer((1, 2, 3, 4))
    here.listen()
    here.answer((2, 3, 4, 5))
    here.listen()
    bench.remove(there)
    state = bench.state()
    assert state.statistics.worker_seconds == {"gathering": 2, "computing": 3, "waiting": 4, "exchanging": 5}
    assert state.statistics.transport_workers == {"shared": 1, "inline": 0}
    assert state.progress.workers_alive == 1
    bench.remove(here)
    bench.peer("next")
    state = bench.state()
    assert state.statistics.worker_seconds == {"gathering": 2, "computing": 3, "waiting": 4, "exchanging": 5}


def _open_files() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_is_left_open(make_bench: MakeBench) -> None:
    """Lines of workers that work, broke off or hang are closed with the engine, and its thread ends."""
    before = _open_files()
    bench = make_bench()
    working, broken, _ = (bench.peer(name, shared=name != "hanging") for name in ("working", "broken", "hanging"))
    working.listen()
    broken.connection.__exit__()
    bench.gone(broken)
    bench.close()
    assert bench.gone(working) == "the parameter server stops"
    assert not [thread for thread in threading.enumerate() if thread.name == "steps"]
    assert _open_files() == before
