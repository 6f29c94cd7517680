"""Workers that are too many leave between two steps, in peace."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest


def _finish_step(peers: list[Any]) -> None:
    """They answer what they hold of the present step, the one after the other."""
    for peer in peers:
        while peer.tickets:
            peer.answer()
            if peer.tickets:
                peer.listen()


def _three_at_work(bench: Any) -> list[Any]:
    """Three workers that hold a ticket each, of the second step."""
    first = bench.peer("first")
    first.listen()
    peers = [first, bench.peer("second"), bench.peer("third")]
    _finish_step(peers)
    for peer in peers:
        peer.listen()
    assert [len(peer.tickets) for peer in peers] == [1, 1, 1]
    return peers


def test_the_newest_leave_at_the_end_of_the_step(bench: Any, expected: bytes) -> None:
    """They finish what they hold, are not missed, and the result is as with them."""
    first, second, third = peers = _three_at_work(bench)
    bench.run(bench.engine.set_workers(1))
    bench.turn()
    assert not any(peer.member.gone.is_set() for peer in peers)
    _finish_step(peers)
    assert (bench.gone(second), bench.gone(third)) == ("", "")
    assert not bench.remove(second)
    first.finish()
    assert bench.coordinator.shard.parameters.tobytes() == expected
    left = [event.worker_left for event in bench.told() if event.worker_left]
    assert left == [f"{name} left: there were more workers than the 1 that are wanted" for name in ("third", "second")]
    assert "worker_lost" not in bench.story()
    state = bench.state()
    assert state.statistics.workers_lost == 0
    assert state.statistics.worker_seconds["gathering"] == 3


def test_who_comes_when_there_are_enough_leaves_at_the_end_of_the_step(bench: Any) -> None:
    """The number counts from now on, not once."""
    first = bench.peer("first")
    first.listen()
    bench.run(bench.engine.set_workers(1))
    second = bench.peer("second")
    _finish_step([first])
    assert bench.gone(second) == ""
    assert not first.member.gone.is_set()


def _finish(peers: list[Any]) -> None:
    """They work until there is no more to do."""
    with ThreadPoolExecutor(len(peers)) as pool:
        for working in [pool.submit(peer.finish) for peer in peers]:
            working.result()


def test_who_is_gone_already_does_not_count(bench: Any, expected: bytes) -> None:
    """A worker whose connection broke makes room for those that are there."""
    first, *others = _three_at_work(bench)
    bench.run(bench.engine.set_workers(2))
    first.connection.__exit__()
    bench.gone(first)
    bench.remove(first)
    _finish(others)
    assert "worker_left" not in bench.story()
    assert bench.coordinator.shard.parameters.tobytes() == expected


@pytest.mark.parametrize("workers", [3, 4, 10_000])
def test_nobody_leaves_while_there_are_not_too_many(bench: Any, expected: bytes, workers: int) -> None:
    """More may be wanted than there are."""
    peers = _three_at_work(bench)
    bench.run(bench.engine.set_workers(workers))
    _finish(peers)
    assert "worker_left" not in bench.story()
    assert bench.coordinator.shard.parameters.tobytes() == expected


def test_what_came_on_a_connection_that_was_closed_in_the_same_look_is_left_alone(bench: Any, expected: bytes) -> None:
    """The first of two ready connections ends the step, for which the other one's worker leaves, in peace still."""
    first, second, third = _three_at_work(bench)
    bench.run(bench.engine.set_workers(2))
    _finish_step([second, third])
    bench.turn()
    with bench.busy():
        first.answer()
        third.socket.sendall(bytes(1000))  # nonsense, for which a connection is broken off
    assert bench.gone(third) == ""
    _finish([first, second])
    assert bench.coordinator.shard.parameters.tobytes() == expected
    assert "worker_lost" not in bench.story()
