"""What workers contribute, and what their processes use."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.progress.attempt_statistics import WorkerCounters, total_usage, write_usage
from workers.runtime.process_statistics import Usage

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


def test_a_share_is_the_sum_of_its_results() -> None:
    """With their samples and their lag."""
    counters = WorkerCounters()
    for samples, lag in ((10, 0.0), (6, 1.5), (10, 0.25)):
        counters.add_results(1, samples, lag)
    assert counters.message("w", Usage(2.5, 8192.0)) == ps_pb.WorkerStatistics(
        worker_id="w",
        results=3,
        samples=26,
        lag_seconds=1.75,
        process=ps_pb.ProcessStatistics(cpu_seconds=2.5, resident_memory_bytes=8192),
    )


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_no_process_can_have_used_is_left_out(case: str) -> None:
    """A worker may say what it likes: its share counts without it, and sums are those of the others."""
    statistics = WorkerCounters().message("w", IMPOSSIBLE[case])
    assert statistics.worker_id == "w"
    assert not statistics.HasField("process")
    assert total_usage([Usage(1.5, 100), IMPOSSIBLE[case], Usage(2.0, 50)]) == (3.5, 150)


@given(st.builds(Usage, st.floats(), st.floats()))
def test_any_usage_can_be_told_or_left_out(usage: Usage) -> None:
    """It is never an error."""
    process = ps_pb.ProcessStatistics()
    write_usage(process, usage)
    assert process.cpu_seconds >= 0
