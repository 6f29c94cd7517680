"""What workers contribute, and how far they are behind."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.shares import Arrivals, Share, enter_usage, total
from workers.tickets import Result, Ticket
from workers.usage import Usage

IMPOSSIBLE = {
    "time that runs backwards": Usage(-1.0, 4096),
    "no number of seconds": Usage(math.nan, 4096),
    "for ever": Usage(math.inf, 4096),
    "older than the universe": Usage(1e300, 4096),
    "less than no memory": Usage(1.0, -4096.0),
    "no memory at all": Usage(1.0, 0.0),
    "no number of bytes": Usage(1.0, math.nan),
    "infinite memory": Usage(1.0, math.inf),
    "more than can be addressed": Usage(1.0, 2.0**64),
}


def _result(step: int, kind: int = 1) -> Result:
    return Result(Ticket(step, kind, 0), step, 0.0, 1, 0)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20))
def test_lag_is_counted_from_the_first_result_of_the_round(times: list[float]) -> None:
    """Which has none; each round has its own, also the evaluation after a step."""
    arrivals = Arrivals()
    for step in range(3):
        for kind in (1, 2):
            came = [1e7 * (2 * step + kind) + time for time in sorted(times)]
            assert [arrivals.lag(_result(step, kind), time) for time in came] == [time - came[0] for time in came]


def test_rounds_may_be_open_side_by_side() -> None:
    """The results of one say nothing of the other; rounds of long ago are forgotten."""
    arrivals = Arrivals()
    assert [arrivals.lag(_result(step), 10.0 * step) for step in (1, 2)] == [0, 0]
    assert [arrivals.lag(_result(step), 25.0) for step in (1, 2)] == [15, 5]
    for step in range(10_000):
        arrivals.lag(_result(step), 0.0)
    assert len(arrivals._first) < 100


def test_a_share_is_the_sum_of_its_results() -> None:
    """With their samples and their lag."""
    share = Share()
    for samples, lag in ((10, 0.0), (6, 1.5), (10, 0.25)):
        share.add(samples, lag)
    assert share.figures("w", Usage(2.5, 8192.0)) == ps_pb.WorkerFigures(
        worker_id="w",
        results=3,
        samples=26,
        lag_seconds=1.75,
        process=ps_pb.ProcessFigures(cpu_seconds=2.5, resident_memory_bytes=8192),
    )


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_no_process_can_have_used_is_left_out(case: str) -> None:
    """A worker may say what it likes: its share counts without it, and sums are those of the others."""
    figures = Share().figures("w", IMPOSSIBLE[case])
    assert figures.worker_id == "w"
    assert not figures.HasField("process")
    assert total([Usage(1.5, 100), IMPOSSIBLE[case], Usage(2.0, 50)]) == (3.5, 150)


@given(st.builds(Usage, st.floats(), st.floats()))
def test_any_usage_can_be_told_or_left_out(usage: Usage) -> None:
    """It is never an error."""
    process = ps_pb.ProcessFigures()
    enter_usage(process, usage)
    assert process.cpu_seconds >= 0
