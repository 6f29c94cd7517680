"""The document of what it costs to be watched."""

import pytest

from benchmarks.load.windows import Window
from benchmarks.scrapes.page import Page
from benchmarks.scrapes.report import Results, markdown
from benchmarks.scrapes.trial import ALONE, SCRAPED


def _windows(speed: float) -> list[Window]:
    return [
        Window(ALONE, 0, 10, {"daemon": 1.0, "training": 10.0}, 0, 1000.0),
        Window(SCRAPED, 0, 10, {"daemon": 2.0, "training": speed / 100}, 0, speed),
    ]


def _outcomes(seconds: float, scraped: float) -> list[str]:
    page = Page(1000, 10**7, 10**5, 0.5, [seconds], [0.5])
    results = Results(page, 1.0, _windows(scraped))
    lines = markdown(results, {"CPUs": "2"}).splitlines()
    return [line.split("|")[-2].strip() for line in lines if line.endswith(("met |", "missed |"))]


@pytest.mark.parametrize(
    ("seconds", "scraped", "outcomes"),
    [
        (0.19, 991, ["met", "met", "met"]),
        (0.2, 991, ["missed", "met", "met"]),
        (0.19, 989, ["met", "missed", "missed"]),
    ],
)
def test_each_requirement_is_met_or_missed_by_itself(seconds: float, scraped: float, outcomes: list[str]) -> None:
    """The time of a scrape, and the speed and CPU time of a training that is scraped."""
    assert _outcomes(seconds, scraped) == outcomes
