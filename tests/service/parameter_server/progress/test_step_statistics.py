"""What is told of steps: durations of all, phases of those that somebody looked at."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.coordinator import Coordinator
from service.parameter_server.progress.attempt_statistics import ACTIVITIES
from service.parameter_server.progress.closed_rounds import ClosedRounds, StepSample
from service.parameter_server.progress.step_statistics import PHASES, RoundTimer, StepStatistics
from service.parameter_server.scheduling.rounds import Round
from workers.mathematics.sums import SampleSums
from workers.plan import Plan
from workers.runtime.process_statistics import Stopwatch
from workers.transport.tickets import Result, Ticket, TicketKind

Answer = Callable[..., Result]

SIZE = 6
PLAN = Plan(rows=10, batch_size=4, micro_batches=3, epochs=2, seed=1)
EVALUATED = Plan(rows=10, batch_size=4, micro_batches=3, epochs=2, seed=1, validation_rows=5)
NOTHING = (0.0,) * len(ACTIVITIES)
GRADIENT, EVALUATION = TicketKind.GRADIENT, TicketKind.EVALUATION
OF_THE_SERVER = ("exchange", "wait", "reduce", "apply")


def _tell(coordinator: Coordinator) -> ps_pb.AttemptStatistics:
    statistics = coordinator.counters.message([], coordinator.stopwatch.seconds, [], {})
    coordinator.steps.write_to(statistics)
    return statistics


def _sums(statistics: ps_pb.AttemptStatistics) -> dict[str, float]:
    return {statistics.phase: statistics.seconds_sum for statistics in statistics.phases}


def _run(
    coordinator: Coordinator, answer: Answer, plan: Plan, computed: Callable[[Ticket], float]
) -> ps_pb.AttemptStatistics:
    """Brings a training to its end, with laps as the engine makes them."""
    lap = coordinator.stopwatch.lap
    lap("waiting")
    coordinator.add_worker("w")
    while not coordinator.over:
        tickets = coordinator.deal_tickets()["w"]
        lap("dealing")
        coordinator.record_rounds()
        lap("booking")
        for ticket in tickets:
            lap("waiting")
            result = answer(coordinator, ticket, plan)
            lap("receiving")
            assert coordinator.accept_result("w", 2, result, computed(ticket)) is None
    coordinator.record_rounds()
    return _tell(coordinator)


def test_the_phases_of_a_step_add_up_to_its_time(make_coordinator: Callable[..., Coordinator], answer: Answer) -> None:
    """Of the parameter server: to all of it, but for the booking that goes on while workers compute."""
    told = _run(make_coordinator(PLAN, SIZE), answer, PLAN, lambda _: 0.0)
    sums, spent = _sums(told), told.server_seconds
    assert sums["exchange"] == sum(spent[activity] for activity in ("receiving", "inspecting", "dealing"))
    assert (sums["reduce"], sums["apply"]) == (spent["reducing"], spent["updating"])
    assert sum(sums[phase] for phase in OF_THE_SERVER) + spent["booking"] == told.step_seconds_sum > 0
    assert {statistics.steps for statistics in told.phases} == {6}


def test_evaluations_are_no_steps(make_coordinator: Callable[..., Coordinator], answer: Answer) -> None:
    """Their time is in no phase; that of the steps after them is all in."""
    told = _run(make_coordinator(EVALUATED, SIZE), answer, EVALUATED, lambda ticket: 100.0 * (ticket.kind - 1))
    phases = sum(_sums(told)[phase] for phase in OF_THE_SERVER)
    assert 0 < told.step_seconds_sum - phases <= told.server_seconds["booking"]
    assert told.evaluation_seconds > 0
    assert _sums(told)["compute"] == 0
    assert {statistics.steps for statistics in told.phases} == {6}


def test_the_wait_for_the_first_worker_belongs_to_no_step(
    make_coordinator: Callable[..., Coordinator], answer: Answer
) -> None:
    """However long it takes until one is there."""
    coordinator = make_coordinator(PLAN, SIZE)
    for _ in range(1000):
        coordinator.stopwatch.lap("waiting")
    assert _sums(_run(coordinator, answer, PLAN, lambda _: 0.0))["wait"] < 100


def test_compute_is_all_that_a_worker_computed_for_a_step(
    make_coordinator: Callable[..., Coordinator], answer: Answer
) -> None:
    """One that has several micro-batches computes them one after the other."""
    told = _run(make_coordinator(PLAN, SIZE), answer, PLAN, lambda ticket: [0.5, 2.0, 1.0][ticket.micro_batch])
    last_steps = 2 * sum([0.5, 2.0, 1.0][: PLAN.parts(2)])
    assert _sums(told)["compute"] == 4 * 3.5 + last_steps


def test_compute_is_that_of_the_worker_who_took_longest() -> None:
    """The others compute meanwhile."""
    round_ = Round(TicketKind.GRADIENT, 0, 0, [1, 1, 1])
    for part, (worker, seconds) in enumerate((("a", 0.5), ("b", 2.0), ("a", 1.0))):
        round_.add_result(
            Result(Ticket(0, TicketKind.GRADIENT, part), 0, SampleSums(0.0, 1), np.zeros(1)), worker, seconds, 0.0
        )
    assert round_.computed == 2.0


@pytest.mark.parametrize("claimed", [-1.0, float("nan"), float("inf"), 1e300])
def test_a_claim_that_is_no_duration_counts_as_nothing(
    make_coordinator: Callable[..., Coordinator], answer: Answer, claimed: float
) -> None:
    """What other workers of the step say counts."""
    told = _run(make_coordinator(PLAN, SIZE), answer, PLAN, lambda ticket: 0.25 if ticket.micro_batch else claimed)
    assert _sums(told)["compute"] == 0.25 * sum(PLAN.parts(step) - 1 for step in range(6))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20), st.sampled_from([GRADIENT, EVALUATION]))
def test_lag_is_counted_from_the_first_result_of_the_round(times: list[float], kind: TicketKind) -> None:
    """Which has none; rounds that are open side by side have each its own."""
    rounds = [Round(kind, 0, step, [1] * len(times)) for step in range(2)]
    for part, time in enumerate(sorted(times)):
        for step, round_ in enumerate(rounds):
            result = Result(Ticket(step, kind, part), step, SampleSums(0.0, 1))
            assert round_.add_result(result, "w", 0.0, time + step) == time + step - (min(times) + step)


def _add(statistics: StepStatistics, seconds: list[float]) -> None:
    for each in seconds:
        spent = tuple(each * (activity == "waiting") for activity in ACTIVITIES)
        statistics.record_steps(_closed(seconds=each, spent=spent, computed=2 * each))


def _told(statistics: StepStatistics) -> ps_pb.AttemptStatistics:
    message = ps_pb.AttemptStatistics()
    statistics.write_to(message)
    return message


def _of(statistics: StepStatistics, phase: str) -> ps_pb.PhaseStatistics:
    return {told.phase: told for told in _told(statistics).phases}[phase]


@pytest.mark.parametrize("steps", [1, 7, 1023, 1024, 1025, 5000])
def test_quantiles_are_those_of_the_last_1024_steps(steps: int) -> None:
    """SampleSums and counts are of all."""
    seconds = np.random.default_rng(steps).exponential(size=steps)
    statistics = StepStatistics()
    _add(statistics, seconds.tolist())
    wait, compute = _of(statistics, "wait"), _of(statistics, "compute")
    assert [wait.p50, wait.p90, wait.p99] == pytest.approx(np.quantile(seconds[-1024:], [0.5, 0.9, 0.99]))
    assert compute.p90 == pytest.approx(2 * wait.p90)
    assert (wait.seconds_sum, wait.steps) == (pytest.approx(seconds.sum()), steps)


def test_every_phase_is_told_from_the_start() -> None:
    """So that a first step shows as an increase; and the first one is seen at once."""
    statistics = StepStatistics()
    assert [told.phase for told in _told(statistics).phases] == list(PHASES)
    assert _of(statistics, "wait") == ps_pb.PhaseStatistics(phase="wait")
    _add(statistics, [3.0])
    assert _of(statistics, "wait").p50 == 3.0


@pytest.mark.parametrize(("asked_every", "steps"), [(1, 140), (3, 420), (1000, 3500), (10_000, 3500)])
def test_the_duration_of_every_step_is_counted_once(asked_every: int, steps: int) -> None:
    """In the class whose upper bound is the first that is not exceeded; however often somebody asks."""
    seconds = [0.0, 0.0001, 0.00011, 0.5, 1.0, 99.0, 101.0] * (steps // 7)
    statistics = StepStatistics()
    for number, each in enumerate(seconds):
        statistics.record_steps(_closed(seconds=each, spent=NOTHING if number % 2 else ()))
        if number % asked_every == 0:
            assert sum(_told(statistics).step_seconds_counts) == number + 1
    told = _told(statistics)
    assert told.step_seconds_sum == pytest.approx(sum(seconds))
    expected = [sum(low < each <= high for each in seconds) for low, high in pairwise(_bounds(told))]
    assert list(told.step_seconds_counts) == expected


def _bounds(told: ps_pb.AttemptStatistics) -> list[float]:
    return [-math.inf, *told.step_seconds_bounds, math.inf]


def test_unasked_statistics_do_not_grow() -> None:
    """A parameter server may go on for hours while nobody follows it."""
    statistics = StepStatistics()
    for number in range(10_000):
        statistics.record_steps(_closed(seconds=1e-3, spent=() if number % 10 else NOTHING))
    assert len(statistics._new_seconds) < 2048
    assert sum(_told(statistics).step_seconds_counts) == 10_000


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _looked_at(kinds: list[tuple[TicketKind, float]]) -> list[bool]:
    """Which of some rounds are looked at, that take so many seconds each."""
    clock = _Clock()
    stopwatch = Stopwatch(ACTIVITIES, clock)
    timer = RoundTimer(stopwatch)
    looked_at = []
    for kind, seconds in kinds:
        clock.now += seconds
        stopwatch.lap("waiting")
        time = timer.end_round(kind)
        assert math.isclose(time.seconds, seconds, rel_tol=1e-6)
        assert math.isclose(sum(time.spent), seconds if time.spent else 0, rel_tol=1e-6)
        looked_at.append(bool(time.spent))
    return looked_at


def test_all_steps_are_looked_at_unless_they_are_short() -> None:
    """Of short ones one in 5 to 10 ms, whichever it is."""
    assert all(_looked_at([(GRADIENT, 0.0101)] * 50))
    for seconds in (0.0001, 0.0003, 0.001):
        looked_at = sum(_looked_at([(GRADIENT, seconds)] * round(1 / seconds)))
        assert 100 <= looked_at <= 200


@given(st.integers(1, 5), st.floats(0.0001, 0.03), st.floats(0.0001, 0.03))
def test_evaluations_take_no_look_away(steps: int, step_seconds: float, evaluation_seconds: float) -> None:
    """Nor do they bring one about: the steps that are looked at are those that would be without them."""
    rounds = ([(GRADIENT, step_seconds)] * steps + [(EVALUATION, evaluation_seconds)]) * 40
    looked_at = _looked_at(rounds)
    of_steps = [look for look, (kind, _) in zip(looked_at, rounds, strict=True) if kind == GRADIENT]
    assert of_steps == _looked_at([(GRADIENT, step_seconds)] * steps * 40)
    assert sum(of_steps) == sum(looked_at)


@pytest.mark.parametrize(
    "pattern", [[1.0, 8.0], [8.0, 1.0, 1.0], [3.0, *[1.0] * 9], [0.5, *[0.1] * 19], [10.0, 5.0, 2.5]]
)
def test_the_steps_that_are_looked_at_are_like_all(pattern: list[float]) -> None:
    """Long ones, those after long ones, and those of one place in an epoch are not looked at more often than others."""
    seconds = 1e-3 * np.array(pattern * (30_000 // len(pattern)))
    looked_at = np.array(_looked_at([(GRADIENT, each) for each in seconds.tolist()]))
    assert np.mean(seconds[looked_at]) == pytest.approx(seconds.mean(), rel=0.1)


def _closed(seconds: float, spent: Sequence[float], computed: float = 0.0, staleness: int = 0) -> ClosedRounds:
    samples = {0: StepSample(spent, computed)} if spent else {}
    return ClosedRounds(TicketKind.GRADIENT, 0, 0, [SampleSums(0.0, 1)], [seconds], samples, {}, staleness)


def _round(step: int, versions: list[int]) -> Round:
    round_ = Round(TicketKind.GRADIENT, 0, step, [1] * len(versions))
    for part, version in enumerate(versions):
        round_.add_result(Result(Ticket(step, 1, part), version, SampleSums(0.0, 1), np.zeros(1)), "w", 0.0, 0.0)
    return round_


@pytest.mark.parametrize(("versions", "staleness"), [([7, 7], 0), ([5, 7], 2), ([7, 6, 4], 3)])
def test_staleness_is_that_of_the_oldest_gradient(versions: list[int], staleness: int) -> None:
    """In updates, at the update."""
    assert _round(7, versions).staleness == staleness


def test_staleness_is_told_and_0_in_sync_mode(make_coordinator: Callable[..., Coordinator], answer: Answer) -> None:
    """What is told is that of the last step that was looked at."""
    coordinator: Any = make_coordinator(PLAN, SIZE)
    assert _run(coordinator, answer, PLAN, lambda _: 0.0).staleness == 0
    coordinator.steps.record_steps(_closed(seconds=1.0, spent=NOTHING, staleness=2))
    assert _tell(coordinator).staleness == 2
