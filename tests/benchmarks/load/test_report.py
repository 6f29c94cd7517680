"""The document of a trial."""

from benchmarks.load.report import markdown
from benchmarks.load.trial import ALONE, CALLED, WATCHED, Extent, Trial
from benchmarks.load.watchers import Heard
from benchmarks.load.windows import Window


def _trial(watched: float, submit_s: float, gaps: int, started: list[str]) -> Trial:
    """The training has as much of the CPUs as its speed is."""
    speeds = {ALONE: 1000.0, WATCHED: watched, CALLED: 990.0}
    return Trial(
        Extent(),
        [Window(name, 0, 10, {"daemon": 1.0, "training": speed}, 10**8, speed) for name, speed in speeds.items()],
        {"submit": [submit_s]},
        [Heard(messages=5, events=4, gaps=gaps)],
        started,
        ["a (priority 1)", "b (priority 0)"],
    )


def _outcomes(document: str) -> list[str]:
    table = document.partition("## Requirements")[2].partition("## Calls")[0]
    return [line.split("|")[-2].strip() for line in table.splitlines() if line.startswith("|")][2:]


def test_what_was_reached_is_met() -> None:
    """Calls, both ratios, gaps and order."""
    document = markdown(_trial(951, 0.199, 0, ["a (priority 1)", "b (priority 0)"]), {"CPUs": "2"})
    assert _outcomes(document) == ["met"] * 7
    assert "95.1%" in document


def test_what_was_not_reached_is_said_to_be_missed() -> None:
    """Each for itself."""
    document = markdown(_trial(949, 0.2, 1, ["b (priority 0)", "a (priority 1)"]), {"CPUs": "2"})
    assert _outcomes(document) == ["missed", "missed", "missed", "met", "met", "missed", "missed"]
