"""What followers are told: all that happened, in order, from any point on, and no more often than it must be."""

from collections.abc import Callable
from functools import partial
from typing import Any

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.progress.event_log import TrainingEventLog

MakeBench = Callable[..., Any]


def _joined(number: int) -> ps_pb.TrainingEvent:
    return ps_pb.TrainingEvent(worker_joined=f"w{number}")


def test_steps_wait_until_something_else_happens() -> None:
    """A step of the history wakes nobody; it is there, with its time, whenever somebody looks."""
    news: list[int] = []
    event_log = TrainingEventLog(lambda: news.append(len(event_log)))
    for step in range(3):
        event_log.append(ps_pb.TrainingEvent(step=jobs_pb.HistoryPoint(step=step)))
    assert news == []
    assert [event.step.step for event in event_log.events_after(1)] == [1, 2]
    event_log.append(_joined(1))
    assert news == [4]
    times = [event.step.time.ToNanoseconds() for event in event_log.events_after(0)[:3]]
    assert 0 < times[0] <= times[1] <= times[2]


def test_each_kind_of_arithmetic_is_told_once() -> None:
    """However many workers have it."""
    event_log = TrainingEventLog(lambda: None)
    for cpu in ("abacus", "slide rule", "abacus", "slide rule"):
        event_log.append_arithmetic(jobs_pb.Arithmetic(cpu=cpu))
    assert [event.arithmetic.cpu for event in event_log.events_after(0)] == ["abacus", "slide rule"]


def test_a_follower_far_behind_is_told_in_parts(bench: Any) -> None:
    """A message holds so much; the next one follows, and nothing is left out."""
    bench.call(lambda: bench.engine._event_log.extend(_joined(number) for number in range(2500)))
    told: list[ps_pb.TrainingEvent] = []
    counts = []
    while part := bench.call(partial(bench.engine.report, len(told))).events:
        told += part
        counts.append(len(part))
    assert told == bench.call(lambda: bench.engine._event_log._events)
    assert counts == [1000, 1000, 502]


def test_the_end_is_told_to_whoever_has_seen_all_else(bench: Any) -> None:
    """And to nobody twice."""
    bench.peer("peer").finish()
    told = bench.told()
    last = bench.call(lambda: bench.engine.report(len(told) - 1))
    assert [event.finished for event in last.events] == ["all 2 epochs are done"]
    for seen in (len(told), 2**64 - 1):
        assert not bench.call(partial(bench.engine.report, seen)).events


def test_statistics_are_reported_on_request_and_with_the_end(bench: Any) -> None:
    """It is work: others are told only how far the training is."""
    peer = bench.peer("peer")
    tell = bench.engine.report
    assert bench.call(lambda: tell(0, with_statistics=True)).HasField("statistics")
    told = bench.call(lambda: tell(0))
    assert (told.HasField("progress"), told.HasField("statistics")) == (True, False)
    peer.finish()
    assert bench.call(lambda: tell(0)).statistics.phases[0].steps == 6


def test_what_decides_the_bits_is_told_first(bench: Any) -> None:
    """The parameter server's own arithmetic, and the weights that the job begins with."""
    bench.turn()
    arithmetic, digest = bench.told()
    assert arithmetic.arithmetic.cpu == "abacus"
    assert len(digest.first_weights_sha256) == 64


def test_a_training_that_has_nothing_left_to_do_ends_without_workers(make_bench: MakeBench) -> None:
    """It is told as any other end is; its last epoch was told before."""
    bench = make_bench(ended=True)
    bench.turn()
    assert bench.story() == ["finished"]
    late = bench.peer("late")
    assert bench.gone(late) == ""
    assert not bench.remove(late)
    bench.close()
