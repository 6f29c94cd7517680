"""Report on scrapes; ../README.md says how to read it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from benchmarks.figures import Spread
from benchmarks.load.windows import Ratio, Window, by_name, compare, training_cpus
from benchmarks.report.tables import spread, table
from benchmarks.scrapes.page import Page
from benchmarks.scrapes.trial import ALONE, SCRAPED

__all__ = ["Results", "markdown"]

_LONGEST_SECONDS = 0.2
_LEAST_RATIO = 0.99


@dataclass(frozen=True)
class Results:
    """Results of all measurements.

    Attributes:
        page: The page of many jobs.
        every: Seconds between two scrapes of the training.
        scraped: Windows of a training with and without scrapes.
    """

    page: Page
    every: float
    scraped: Sequence[Window]


def markdown(results: Results, machine: Mapping[str, str]) -> str:
    """The whole document."""
    return "\n\n".join(
        [
            "# Scrapes\n\nMade by `make bench-scrapes`; [README.md](../README.md#scrapes) says how to read it.",
            "\n".join(f"- {name}: {value}" for name, value in machine.items()),
            table(["what", "must be", "was", ""], _verdicts(results)),
            _about(results.page),
            table(
                ["window", "samples/s", "CPUs of the daemon"],
                [_speed(name, windows) for name, windows in by_name(results.scraped).items()],
            ),
        ]
    )


def _verdicts(results: Results) -> list[list[str]]:
    page = results.page
    title = f"that is scraped every {results.every:g} s, over alone"
    return [
        [f"scrape of {page.jobs:,} jobs, median", "< 200 ms", f"{page.typical_seconds * 1e3:.0f} ms",
         _met(page.typical_seconds < _LONGEST_SECONDS)],
        [f"training {title}", *_kept(compare(results.scraped, SCRAPED, ALONE))],
        [f"CPU time of a training {title}", *_kept(compare(results.scraped, SCRAPED, ALONE, training_cpus))],
    ]  # fmt: skip


def _kept(ratio: Ratio) -> list[str]:
    return ["≥ 99 %", str(ratio), _met(ratio.median >= _LEAST_RATIO)]


def _about(page: Page) -> str:
    return (
        f"The page of {page.jobs:,} jobs that all run, with 4 workers and 3 layers each, has {page.series:,} series "
        f"and {page.size_bytes / 1e6:.1f} MB. The first scrape took {page.first_seconds * 1e3:.0f} ms, "
        f"the longest of {len(page.seconds)} others {max(page.seconds) * 1e3:.0f} ms; prometheus_client takes "
        f"{1 / page.ratio:.1f} times as long for the same series, without sending them."
    )


def _speed(name: str, windows: Sequence[Window]) -> list[str]:
    """Median (minimum–maximum) of the speeds, and the median of the CPUs."""
    speeds = Spread.of([window.samples_per_second for window in windows])
    cpus = median(window.cpus("daemon") for window in windows)
    return [f"{name} ({len(windows)})", spread(asdict(speeds)), f"{cpus:.3f}"]


def _met(good: bool) -> str:
    return "met" if good else "missed"
