"""What is required is judged by what was measured."""

import pytest

from benchmarks.requirements import Verdict, verdicts


@pytest.mark.parametrize(
    ("measured", "outcome"), [(2.0, "aim reached"), (1.9, "aim reached"), (1.6, "reached"), (1.59, "MISSED")]
)
def test_more_is_better_for_ratios(measured: float, outcome: str) -> None:
    """The marks themselves count as reached."""
    assert Verdict("x", measured, must=1.6, aim=1.9).outcome == outcome


@pytest.mark.parametrize(("measured", "outcome"), [(1.0, "aim reached"), (2.0, "reached"), (2.1, "MISSED")])
def test_less_is_better_for_seconds(measured: float, outcome: str) -> None:
    """Where at most so much is wanted."""
    assert Verdict("x", measured, must=2.0, aim=1.0, at_least=False).outcome == outcome


def test_without_an_aim_nothing_is_beyond_reached() -> None:
    """Not even a far better figure."""
    assert Verdict("x", 1.0, must=150.0, aim=None, at_least=False).outcome == "reached"


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    """Results of nothing name every requirement all the same."""
    empty = verdicts({"speed": {}})
    assert len(empty) == 18
    assert {verdict.outcome for verdict in empty} == {"not measured"}


def test_ratios_are_of_medians() -> None:
    """One speed through the other, from the same work."""
    speeds = {"service": {"median": 300.0}, "numpy": {"median": 150.0}}
    verdict = verdicts({"speed": {"paper-100": {"samples_per_second": speeds}}})[0]
    assert verdict.measured == 2.0
    assert verdict.outcome == "aim reached"


def test_bookkeeping_is_a_share_of_the_step() -> None:
    """The server's activity over the time from one update to the next, in percent."""
    job = {"step_us": 400.0, "server_us": {"booking": 6.0, "waiting": 300.0}}
    results = {"speed": {"paper-100": {"samples_per_second": {}, "jobs": {"service": job}}}}
    verdict = next(verdict for verdict in verdicts(results) if "bookkeeping" in verdict.what)
    assert (verdict.measured, verdict.unit, verdict.outcome) == (1.5, "%", "reached")


def test_memory_is_held_against_the_limit_of_its_job() -> None:
    """The largest peak of each role, in MB."""
    processes = {
        "parameter server": {"largest": {"peak": 140_000_000}, "limit": 150_000_000},
        "worker": {"largest": {"peak": 300_000_000}, "limit": 255_000_000},
    }
    server, worker = verdicts({"speed": {}, "memory": {"processes": processes}})[-2:]
    assert (server.measured, server.must, server.outcome) == (140.0, 150.0, "reached")
    assert (worker.measured, worker.must, worker.outcome) == (300.0, 255.0, "MISSED")
