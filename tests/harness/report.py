"""The results of a robustness run, for people and for programs; and what all pages of the harness are made of."""

import os
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.harness.campaign import Result
from tests.harness.invariants import INVARIANTS
from tests.harness.scenarios import Scenario

__all__ = ["RESULTS", "Report", "machine", "table"]

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
"""Folder of the pages. Raw data is written beside them, and is no part of the repository."""


def machine() -> dict[str, str]:
    """Returns what the times in a report depend on, in words."""
    return {
        "CPUs": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **{name: version(name) for name in ("nablad", "grpcio", "ray")},
    }


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown that is also legible as it stands."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [heads, ["-" * width for width in widths], *rows]
    cells = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


@dataclass(frozen=True)
class Report:
    """Report on one invocation.

    Attributes:
        date: When it ran.
        machine: What it ran on.
        minutes: How long it took.
        scenarios: Those that were run.
        results: Of all runs.
    """

    date: str
    machine: dict[str, Any]
    minutes: float
    scenarios: Sequence[Scenario]
    results: Sequence[Result]

    @property
    def holds(self) -> bool:
        """True if all invariants held in all runs."""
        return all(result.holds for result in self.results)

    def json(self) -> dict[str, Any]:
        """Everything."""
        return {
            "date": self.date,
            "machine": self.machine,
            "minutes": round(self.minutes, 1),
            "results": [asdict(result) for result in self.results],
        }

    def markdown(self) -> str:
        """The table, and what did not hold."""
        facts = {"date": self.date, **self.machine, "minutes": f"{self.minutes:.0f}"}
        heads = ["scenario", "fault", "runs", "faults", *INVARIANTS, "longest stall, s", "attempts"]
        parts = [
            "# Robustness",
            "Made by `make robustness`; [docs/robustness.md](../../docs/robustness.md) says how to read it and how to "
            "repeat a row.",
            "\n".join(f"- {name}: {value}" for name, value in facts.items()),
            "\n".join(f"- **{name}**: {meaning}" for name, meaning in INVARIANTS.items()),
            table(heads, [self._row(scenario) for scenario in self.scenarios]),
            "Attempts are those that the jobs took, with the number of jobs that took so many.",
            *self._broken(),
        ]
        return "\n\n".join(parts)

    def _row(self, scenario: Scenario) -> list[str]:
        results = [result for result in self.results if result.scenario == scenario.name]
        attempts = sorted(Counter(result.attempts for result in results).items())
        return [
            f"`{scenario.name}`",
            scenario.fault,
            f"{len(results)}",
            f"{sum(result.faults for result in results)}",
            *(_held(name, scenario, results) for name in INVARIANTS),
            f"{max(result.stall_s for result in results):.1f}",
            ", ".join(f"{attempt} × {count}" for attempt, count in attempts),
        ]

    def _broken(self) -> list[str]:
        lines = [
            f"- `{result.scenario}` seed {result.seed}, {name}: {sentence}"
            for result in self.results
            for name, sentences in result.broken.items()
            for sentence in sentences
        ]
        return ["## What did not hold", "\n".join(lines)] if lines else []


def _held(name: str, scenario: Scenario, results: Sequence[Result]) -> str:
    if name == "E" and not scenario.spares_others:
        return "–"
    return f"{sum(not result.broken.get(name) for result in results)}"
