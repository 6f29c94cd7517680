"""What a contest makes of its measurements."""

import pytest

from benchmarks.errors import CostsDisagreeError
from benchmarks.figures import Measurement, Spread
from benchmarks.service_jobs import JobRun, StepProfile
from benchmarks.speed import Contest, messages
from benchmarks.works import MESSAGES
from nablad.v1.jobs_pb2 import Progress
from nablad.v1.metrics_pb2 import Metrics

COSTS = [2.0, 1.0]


def _job(speed: float, computing_us: float) -> JobRun:
    epochs = [Progress(samples_per_second=speed, training=Metrics(cost=cost)) for cost in COSTS]
    return JobRun(epochs, 0.5, StepProfile(5000.0, {"computing": computing_us}, {}), {"inline": 2})


@pytest.fixture
def contest() -> Contest:
    """Two repetitions of numpy, the sockets and the service."""
    contest = Contest(MESSAGES)
    contest.measured["numpy"] = [Measurement([1.0, 400.0], COSTS), Measurement([1.0, 500.0], COSTS)]
    contest.measured["loopback-limit"] = [Measurement([1.0, 1600.0])]
    for computing_us in (1000.0, 3000.0):
        contest.add_job("service-inline", _job(900.0, computing_us))
    return contest


def test_a_report_holds_medians_and_the_parts_of_a_step(contest: Contest) -> None:
    """Of everybody the steady speed, of jobs also the median of each activity."""
    report = contest.report()
    assert report["samples_per_second"]["numpy"] == Spread(450.0, 400.0, 500.0)
    assert report["samples_per_second"]["service-inline"].median == 900.0
    assert report["cost_differences"] == {"numpy": 0.0, "service-inline": 0.0}
    assert report["jobs"]["service-inline"]["worker_us"] == {"computing": 2000.0}


def test_limits_need_no_costs_but_trainers_the_same(contest: Contest) -> None:
    """Who trains otherwise is found out, in whichever repetition."""
    contest.check_costs()
    contest.measured["numpy"].append(Measurement([1.0, 500.0], [2.0, 1.1]))
    with pytest.raises(CostsDisagreeError, match=r"numpy by hand, 1 thread on 784-1024-1024-10, batch 16"):
        contest.check_costs()


def test_bytes_per_second_leave_the_computing_out(contest: Contest) -> None:
    """4 times the weights in 4 and in 2 ms, beside sockets that make 100 steps a second."""
    report = messages(contest)
    step_bytes = 4 * MESSAGES.weights_bytes
    assert report["step_bytes"] == step_bytes
    rates = [step_bytes / 0.004, step_bytes / 0.002]
    assert report["service_bytes_per_second"] == Spread(sum(rates) / 2, *rates)
    assert report["loopback_bytes_per_second"].median == pytest.approx(100 * step_bytes)
    assert report["ratio"] == pytest.approx(3.75)
