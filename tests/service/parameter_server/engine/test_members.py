"""The engine and its workers, whoever comes, goes, breaks off or says nothing."""

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from workers.mathematics.sums import SampleSums
from workers.transport.frames import WORKER_STATISTICS, Report, ReportKind
from workers.transport.tickets import Result, Ticket

MakeBench = Callable[..., Any]


@pytest.mark.parametrize("shared", [True, False])
def test_workers_come_and_go(bench: Any, expected: bytes, shared: bool) -> None:
    """One that leaves is missed, another one takes its tickets, and the end is told to all."""
    first = bench.peer("first", shared=shared)
    first.listen()
    first.answer()
    first.listen()
    assert bench.remove(first)
    second, third = bench.peer("second", shared=not shared), bench.peer("third", shared=shared)
    bench.turn()
    with ThreadPoolExecutor(1) as pool:
        helping = pool.submit(third.finish)
        second.finish()
        helping.result()
    assert (bench.gone(second), bench.gone(third)) == ("", "")
    assert not bench.remove(second)
    assert not bench.remove(third)
    assert bench.coordinator.shard.parameters.tobytes() == expected
    assert bench.story() == [
        "worker_joined", "worker_lost", "worker_joined", "worker_joined", "epoch_end", "epoch_end", "finished",
    ]  # fmt: skip


def test_who_comes_when_all_is_done_is_gone_at_once(bench: Any) -> None:
    """It gets no tickets, and nobody misses it."""
    bench.peer("first").finish()
    late = bench.peer("late")
    assert bench.gone(late) == ""
    assert not bench.remove(late)
    assert not late.listen()
    assert bench.story() == ["worker_joined", "epoch_end", "epoch_end", "finished"]


def test_what_happens_is_told_in_its_order(bench: Any) -> None:
    """A worker joined before anything that it brought about, and was lost before anything that others do for it."""
    first = bench.peer("first")
    first.listen()
    with bench.busy():
        first.connection.close()
        bench.start(bench.engine.remove_worker(first.member))
        second = bench.new_peer("second")
        bench.start(bench.engine.add_worker(second.member))
    second.finish()
    bench.gone(second)
    assert bench.story() == [
        "worker_joined", "worker_lost", "worker_joined", "epoch_end", "epoch_end", "finished",
    ]  # fmt: skip
    told = [event.worker_joined or event.worker_lost for event in bench.told()]
    first_joined, first_lost, second_joined = filter(None, told)
    assert (first_joined, second_joined) == ("first joined", "second joined")
    assert first_lost.startswith("first was lost")


def test_a_worker_is_removed_once(bench: Any) -> None:
    """Whoever says it again is told that it is not missed."""
    peer = bench.peer("peer")
    assert bench.remove(peer)
    assert not bench.remove(peer)
    assert bench.state().statistics.workers_lost == 1


def test_a_worker_that_is_lost_while_it_is_added_holds_nothing(bench: Any, expected: bytes) -> None:
    """The call that adds it is broken off: the removal that follows finds it, and its tickets go to others."""
    lost = bench.new_peer("lost")

    async def add_and_break_off() -> None:
        adding = asyncio.ensure_future(bench.engine.add_worker(lost.member))
        await asyncio.sleep(0)
        adding.cancel()
        await asyncio.wait([adding])

    with bench.busy():
        bench.run(add_and_break_off())
    assert bench.remove(lost)
    bench.peer("other").finish()
    assert bench.coordinator.shard.parameters.tobytes() == expected


def _half_a_word(peer: Any) -> None:
    peer.socket.sendall(b"\1")
    peer.socket.shutdown(socket.SHUT_WR)


BREAKS = {
    "it goes": (lambda peer: peer.connection.__exit__(), "its connection broke: "),
    "it says nonsense": (
        lambda peer: peer.socket.sendall(bytes(1000)),
        "its connection broke: it announces 0 bytes from 0 on",
    ),
    "it says half a word": (_half_a_word, "its connection broke: the worker closed it"),
}


@pytest.mark.parametrize("case", BREAKS)
@pytest.mark.parametrize("shared", [True, False])
def test_a_connection_that_breaks_is_the_reason(bench: Any, expected: bytes, case: str, shared: bool) -> None:
    """The engine says why it gave the worker up, keeps its tickets until it is removed, and loses none."""
    break_it, reason = BREAKS[case]
    peer = bench.peer("peer", shared=shared)
    peer.listen()
    break_it(peer)
    assert bench.gone(peer).startswith(reason)
    other = bench.peer("other")
    assert bench.call(lambda: bench.coordinator.holds_tickets("peer"))
    assert bench.remove(peer)
    other.finish()
    assert bench.coordinator.shard.parameters.tobytes() == expected


def test_silence_is_given_up_after_patience_which_grows(bench: Any) -> None:
    """Who holds tickets must be heard of; who waits for tickets may wait; who was only slow has more time next time."""
    slow, idle = bench.peer("slow"), bench.peer("idle")
    for bench.seconds in (1, 59, 60):
        bench.turn()
        assert not slow.member.gone.is_set()
    bench.seconds = 62
    bench.turn()
    assert bench.gone(slow) == "no word of slow for 60 s"
    assert bench.remove(slow)  # its tickets go to idle
    idle.listen()
    bench.seconds = 62 + 120
    bench.turn()
    idle.answer()
    idle.listen()
    bench.seconds = 62 + 240
    bench.turn()
    assert not idle.member.gone.is_set()
    bench.seconds = 62 + 242
    bench.turn()
    assert bench.gone(idle) == "no word of idle for 120 s"


def _drain(connection: socket.socket) -> None:
    with suppress(BlockingIOError):
        while connection.recv(1 << 20, socket.MSG_DONTWAIT):
            pass


def test_a_connection_that_has_nothing_to_send_any_more_lets_the_engine_sleep(make_bench: MakeBench) -> None:
    """However the last bytes got away: here with the answer to a report that came in between."""
    bench = make_bench(size=40_000)
    peer = bench.peer("peer", shared=False)
    bench.turn()
    assert peer.member.connection.has_unsent
    with bench.busy():
        _drain(peer.socket)
        unknown = Result(Ticket(99, 1, 0), 0, SampleSums(0.0, 0))
        peer.socket.sendall(Report(ReportKind.RESULT, 2, unknown, 0, 0, [0.0] * len(WORKER_STATISTICS)).encode())
    bench.turn()
    assert not peer.member.connection.has_unsent
    _drain(peer.socket)
    bench.turn()
    polls = bench.selector.polls
    for _ in range(50):
        bench.call(lambda: None)
    assert bench.selector.polls <= polls + 55
    bench.close()


def test_an_error_in_a_step_fails_the_job(make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for steps that will not come; calls are answered, and the engine can be closed."""
    bench = make_bench()

    def fail(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(bench.coordinator, "accept_result", fail)
    peer = bench.peer("peer")
    peer.listen()
    peer.answer()
    bench.engine._thread.join()
    bench.call(lambda: None)
    assert bench.told()[-1].failed == "the parameter server failed: MemoryError('no room')"
    assert bench.call(lambda: bench.engine.report(0)).HasField("statistics")
    assert bench.state().progress.workers_alive == 1
    assert bench.remove(peer)
    bench.close()


def test_a_removal_that_fails_half_way_fails_the_job(make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tickets would wait for a worker that never comes: nobody waits for them."""
    bench = make_bench()
    peer = bench.peer("peer")
    peer.listen()

    def fail(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(bench.coordinator.shard, "detach_gradient", fail)
    bench.remove(peer)
    bench.engine._thread.join()
    assert bench.told()[-1].failed == "the parameter server failed: MemoryError('no room')"
    bench.close()
