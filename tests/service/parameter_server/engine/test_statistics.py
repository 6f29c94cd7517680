"""What the engine tells of each worker, and of its own process."""

import math
from typing import Any

import pytest

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.transport import members as members_module


def _statistics(bench: Any) -> dict[str, ps_pb.WorkerStatistics]:
    """Of the workers, by name, in the order that they are told in."""
    bench.turn()
    return {statistics.worker_id: statistics for statistics in bench.state().statistics.workers}


def _answer_all(bench: Any, peer: Any, **answer: Any) -> None:
    """The peer answers what it holds."""
    while peer.tickets:
        peer.answer(**answer)
        bench.turn()
        if peer.tickets:
            peer.listen()


def _at_work(bench: Any, names: list[str]) -> list[Any]:
    """Workers that hold a ticket each, of the second step; the first one has made the first step alone."""
    first = bench.peer(names[0])
    first.listen()
    peers = [first, *map(bench.peer, names[1:])]
    _answer_all(bench, first)
    for peer in peers:
        peer.listen()
    return peers


def test_results_and_samples_of_each_worker_are_counted(bench: Any) -> None:
    """Those that were taken, evaluations among them; with what its process has used."""
    peer = bench.peer("peer")
    for _ in range(3):
        peer.listen()
        _answer_all(bench, peer)
    told = _statistics(bench)["peer"]
    assert (told.results, told.samples) == (3 + 3 + 2, 4 + 4 + 2)
    assert told.process == ps_pb.ProcessStatistics(cpu_seconds=0.5, resident_memory_bytes=4096)
    peer.listen()
    _answer_all(bench, peer)
    bench.peer("idle")
    assert _statistics(bench)["peer"].samples == 10 + 5
    assert _statistics(bench)["idle"] == ps_pb.WorkerStatistics(worker_id="idle")


def test_a_result_that_is_rejected_does_not_count(bench: Any) -> None:
    """It is none of this attempt."""
    peer = bench.peer("peer")
    peer.listen()
    peer.answer(attempt=1)
    assert _statistics(bench)["peer"].results == 0


def test_a_worker_that_is_slower_has_the_larger_lag(bench: Any) -> None:
    """It is the time from the first result of each step to its own, over all steps."""
    peers = _at_work(bench, ["fast", "slow", "slower"])
    for delay, peer in zip((10, 2, 1.5), peers, strict=True):
        bench.seconds += delay
        _answer_all(bench, peer)
    assert [statistics.lag_seconds for statistics in _statistics(bench).values()] == [0, 2, 3.5]
    for delay, peer in zip((10, 2), peers[:2], strict=True):  # the next step has two tickets
        peer.listen()
        bench.seconds += delay
        _answer_all(bench, peer)
    assert [statistics.lag_seconds for statistics in _statistics(bench).values()] == [0, 4, 3.5]


def test_others_holds_the_sum(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes when there are enough names is counted together, by the order of coming."""
    monkeypatch.setattr(members_module, "_MOST_NAMED", 1)
    peers = _at_work(bench, ["first", "second", "third"])
    for usage, peer in zip([(8.0, 1000), (1.0, 200), (0.5, 30)], peers, strict=True):
        bench.seconds += 1
        _answer_all(bench, peer, usage=usage)
    told = _statistics(bench)
    assert list(told) == ["first", "others"]
    assert (told["first"].results, told["first"].lag_seconds) == (4, 0)
    assert (told["others"].results, told["others"].lag_seconds) == (2, 1 + 2)
    assert told["first"].samples + told["others"].samples == 8
    assert told["others"].process == ps_pb.ProcessStatistics(cpu_seconds=1.5, resident_memory_bytes=230)


def test_a_job_of_many_workers_has_few_figures(bench: Any) -> None:
    """The first 64 have an entry each; one that is gone has none, and makes room for the next that comes."""
    peers = [bench.peer(f"w{number}") for number in range(70)]
    assert list(_statistics(bench)) == [*(f"w{number}" for number in range(64)), "others"]
    bench.remove(peers[3])
    bench.peer("late")
    assert list(_statistics(bench)) == [*(f"w{number}" for number in range(64) if number != 3), "late", "others"]
    for peer in peers[64:]:
        bench.remove(peer)
    assert "others" not in _statistics(bench)


def test_sums_of_others_never_fall(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was counted together stays counted when one of them is gone: these are counters."""
    monkeypatch.setattr(members_module, "_MOST_NAMED", 1)
    peers = _at_work(bench, ["first", "second", "third"])
    for peer in peers[1:]:
        _answer_all(bench, peer)
    before = _statistics(bench)["others"]
    assert (before.results, before.process.cpu_seconds > 0) == (2, True)
    bench.remove(peers[1])
    after = _statistics(bench)["others"]
    assert (after.results, after.process.cpu_seconds) == (2, before.process.cpu_seconds)
    assert after.process.resident_memory_bytes < before.process.resident_memory_bytes
    bench.remove(peers[0])
    assert list(_statistics(bench)) == ["others"]


@pytest.mark.parametrize(
    "usage", [(-1.0, 4096.0), (math.nan, 4096.0), (1.0, math.inf), (1e300, 4096.0), (1.0, -5.0), (1.0, 2.0**63)]
)
def test_a_hostile_usage_is_left_out(bench: Any, usage: tuple[float, float]) -> None:
    """What the worker contributes counts all the same."""
    peer = bench.peer("peer")
    peer.listen()
    peer.answer(usage=usage)
    told = _statistics(bench)["peer"]
    assert told.results == 1
    assert not told.HasField("process")


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -5.0])
def test_hostile_seconds_are_left_out_of_the_phases(bench: Any, seconds: float) -> None:
    """The step counts without them."""
    peer = bench.peer("peer")
    peer.listen()
    _answer_all(bench, peer, seconds=(seconds, seconds, 0, 0))
    phases = {statistics.phase: statistics for statistics in bench.state().statistics.phases}
    assert (phases["compute"].seconds_sum, phases["compute"].steps) == (0, 1)


def test_compute_is_what_was_reported_since_the_last_report(bench: Any) -> None:
    """Gathering and computing, for all results of a step; workers report totals."""
    peer = bench.peer("peer")
    peer.listen()
    for gathered, computed in ((1, 2), (2, 7), (2, 8)):
        peer.answer((gathered, computed, 100, 100))
        bench.turn()
        peer.listen()
    phases = {statistics.phase: statistics for statistics in bench.state().statistics.phases}
    assert phases["compute"].p50 == phases["compute"].seconds_sum == 2 + 8


def test_the_parameter_servers_own_process_is_told(bench: Any) -> None:
    """From the start, without workers."""
    process = bench.state().statistics.process
    assert process.cpu_seconds > 0
    assert process.resident_memory_bytes > 2**20


def test_statistics_of_steps_are_told_to_the_end(bench: Any) -> None:
    """Those of the steps; workers are gone by then."""
    peer = bench.peer("peer")
    peer.finish()
    assert bench.gone(peer) == ""
    bench.remove(peer)
    statistics = bench.state().statistics
    assert {statistics.steps for statistics in statistics.phases} == {6}
    assert len(statistics.layers) == 1
    assert not statistics.workers
    assert statistics.HasField("process")
