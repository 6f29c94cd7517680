"""Checkpoints of a training that is at work: when they are due, and who gets them."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from service.parameter_server import checkpoints as checkpoints_module
from service.parameter_server.checkpoints import TakenCheckpoint

MakeBench = Callable[..., Any]
Waiting = "Future[TakenCheckpoint | None]"


def _wait(bench: Any, *, now: bool = False) -> Waiting:
    """Asks for a checkpoint; returns when the engine knows of it."""
    waiting: Future[TakenCheckpoint | None] = asyncio.run_coroutine_threadsafe(
        bench.engine.take_checkpoint(now=now), bench.engine._bridge.loop
    )
    bench.run(asyncio.sleep(0))
    bench.call(lambda: None)
    bench.run(asyncio.sleep(0))
    return waiting


def _make_step(peer: Any) -> None:
    """Makes one step, or one evaluation."""
    peer.listen()
    while len(peer.tickets) > 1:
        peer.answer()
        peer.listen()
    peer.answer()


def test_the_next_one_is_due_by_time_and_only_when_something_has_changed(bench: Any) -> None:
    """After 30 s, at the end of the step that is being made then; and the next one 30 s after it."""
    peer, first = bench.peer("peer"), _wait(bench)
    _make_step(peer)
    bench.turn()
    assert not first.done()
    bench.seconds = 31
    bench.turn()
    assert not first.done()
    _make_step(peer)
    assert first.result().state.step == 2
    bench.seconds = 62
    second = _wait(bench)
    bench.turn()
    assert not second.done()
    _make_step(peer)
    assert second.result().state.step == 3
    assert not second.result().state.evaluated


def test_what_is_due_while_nobody_asks_is_taken_when_somebody_does(bench: Any) -> None:
    """At once."""
    peer = bench.peer("peer")
    _make_step(peer)
    peer.listen()
    bench.seconds = 31
    assert _wait(bench).result(30).state.step == 1


def test_by_epochs_one_is_due_after_the_evaluation(make_bench: MakeBench) -> None:
    """Not before the statistics of the epoch are complete."""
    bench = make_bench(every_epochs=1)
    peer, waiting = bench.peer("peer"), _wait(bench)
    for _ in range(3):
        _make_step(peer)
    peer.listen()
    bench.turn()
    assert not waiting.done()
    while peer.tickets:
        peer.answer()
        peer.listen()
    state = waiting.result(30).state
    assert (state.step, state.evaluated) == (3, True)
    bench.close()


def test_one_of_now_is_there_at_once(bench: Any) -> None:
    """Also when nobody works, and in the middle of a step: it is the one before."""
    assert _wait(bench, now=True).result(30).state.step == 0
    peer = bench.peer("peer")
    _make_step(peer)
    peer.listen()
    peer.answer()
    peer.listen()
    assert _wait(bench, now=True).result(30).state.step == 1


def test_one_of_now_is_the_last_one_too(bench: Any) -> None:
    """The next one is due 30 s after it; who waits for that gets its own."""
    peer, periodic = bench.peer("peer"), _wait(bench)
    bench.seconds = 29
    assert _wait(bench, now=True).result(30).state.step == 0
    bench.seconds = 31
    bench.turn()
    _make_step(peer)
    peer.listen()
    assert not periodic.done()
    bench.seconds = 60
    bench.turn()
    while peer.tickets:
        peer.answer()
        peer.listen()
        if periodic.done():
            break
    assert periodic.result(30).state.step == 2


def test_all_who_wait_get_one(bench: Any) -> None:
    """The same, since nobody changes it."""
    peer, waiting = bench.peer("peer"), [_wait(bench) for _ in range(3)]
    bench.seconds = 31
    bench.turn()
    _make_step(peer)
    images = [each.result(30).image for each in waiting]
    assert images[0] is images[1] is images[2]


def test_who_goes_away_is_forgotten(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No checkpoint is taken for it, and it is not kept."""
    made: list[int] = []
    make = checkpoints_module.make_image
    monkeypatch.setattr(checkpoints_module, "make_image", lambda *given: (made.append(1), make(*given))[1])
    peer, gone = bench.peer("peer"), _wait(bench)
    gone.cancel()
    bench.run(asyncio.sleep(0))
    bench.seconds = 31
    bench.turn()
    _make_step(peer)
    peer.listen()
    assert made == []
    assert bench.call(lambda: bench.engine._checkpoint_requests._waiting) == []


def test_the_end_of_the_training_ends_all_waiting(bench: Any) -> None:
    """Without a checkpoint; and whoever asks afterwards gets none."""
    peer, waiting = bench.peer("peer"), _wait(bench)
    peer.finish()
    assert waiting.result(30) is None
    assert _wait(bench).result(30) is None
    assert _wait(bench, now=True).result(30) is None


def test_closing_ends_all_waiting(make_bench: MakeBench) -> None:
    """And nobody waits for ever who asks afterwards."""
    bench = make_bench()
    waiting = _wait(bench)
    bench.close()
    assert waiting.result(30) is None
    assert _wait(bench).result(30) is None
    assert _wait(bench, now=True).result(30) is None


def test_a_training_goes_on_without_memory_for_a_checkpoint(
    bench: Any, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked is told; the next one who asks may have more luck."""

    def fail(*_: object) -> bytearray:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints_module, "make_image", fail)
        with pytest.raises(MemoryError):
            _wait(bench, now=True).result(30)
    assert _wait(bench, now=True).result(30).state.step == 0
    bench.peer("peer").finish()
    assert bench.coordinator.shard.parameters.tobytes() == expected
