"""Requirements on the figures, as a table, and their verdicts."""

from dataclasses import dataclass
from typing import Any

from benchmarks.memory import LIMITS

__all__ = ["RATIOS", "Ratio", "Verdict", "verdicts"]

Results = dict[str, Any]

_MB = 10**6


@dataclass(frozen=True)
class Verdict:
    """A requirement beside what was measured.

    Attributes:
        what: Is required.
        measured: None if it was not.
        must: What has to be reached; None if that depends on what was not measured.
        aim: What was aimed at; None: nothing beyond that.
        unit: Of the figures.
        at_least: Whether larger is better.
    """

    what: str
    measured: float | None
    must: float | None
    aim: float | None
    unit: str = ""
    at_least: bool = True

    @property
    def outcome(self) -> str:
        """Outcome in a few words."""
        if self.measured is None or self.must is None:
            return "not measured"
        if not self._reaches(self.measured, self.must):
            return "MISSED"
        return "aim reached" if self.aim is not None and self._reaches(self.measured, self.aim) else "reached"

    def _reaches(self, measured: float, mark: float) -> bool:
        return measured >= mark if self.at_least else measured <= mark


@dataclass(frozen=True)
class Ratio:
    """Requirement that a contestant is so many times as fast as another one.

    Attributes:
        what: In words.
        work: Name of the work.
        contestant: Whose samples per second are divided…
        by: …by those of this one; medians both.
        must: What has to be reached.
        aim: What was aimed at.
    """

    what: str
    work: str
    contestant: str
    by: str
    must: float
    aim: float

    def verdict(self, results: Results) -> Verdict:
        """Returns the verdict on the results of one run."""
        speeds = results["speed"].get(self.work, {}).get("samples_per_second", {})
        measured = None
        if self.contestant in speeds and self.by in speeds:
            measured = speeds[self.contestant]["median"] / speeds[self.by]["median"]
        return Verdict(self.what, measured, self.must, self.aim, "×")


RATIOS = (
    Ratio("784-100-50-10, batch 100: against numpy by hand, 1 thread", "paper-100", "service", "numpy", 1.3, 1.55),
    Ratio("same, against torch, 2 threads", "paper-100", "service", "torch-2", 1.6, 2.0),
    Ratio("same, against the all-reduce in shared memory", "paper-100", "service", "shared-all-reduce", 1.0, 1.2),
    Ratio("same, one worker, against numpy by hand", "paper-100", "service-1", "numpy", 0.95, 1.0),
    Ratio("784-100-50-10, batch 500: against numpy by hand, 1 thread", "paper-500", "service", "numpy", 1.6, 1.85),
    Ratio("same, against torch, 2 threads", "paper-500", "service", "torch-2", 1.3, 1.5),
    Ratio("same, against the limit of the BLAS", "paper-500", "service", "blas-limit", 0.68, 0.78),
    Ratio("same, against the all-reduce in shared memory", "paper-500", "service", "shared-all-reduce", 1.0, 1.2),
    Ratio("same, one worker, against numpy by hand", "paper-500", "service-1", "numpy", 0.95, 1.0),
    Ratio("same, inline, against torch DDP", "paper-500", "service-inline", "torch-ddp", 2.0, 2.5),
    Ratio("784-512-512-10, batch 64: against numpy by hand, 1 thread", "ray-train-64", "service", "numpy", 1.15, 1.35),
    Ratio(
        "784-1024-1024-10, batch 500: against the limit of the BLAS", "wide-500", "service", "blas-limit", 0.88, 0.95
    ),
    Ratio("784-1024-1024-10, batch 16: against numpy by hand, 1 thread", "messages", "service", "numpy", 1.0, 1.2),
)


def verdicts(results: Results) -> list[Verdict]:
    """Returns the verdicts on all requirements, in the order of their table."""
    return [
        *(ratio.verdict(results) for ratio in RATIOS),
        Verdict(
            "inline, 7.4 MB of weights: bytes per second against plain TCP",
            results.get("messages", {}).get("ratio"),
            must=0.5,
            aim=0.7,
            unit="×",
        ),
        Verdict(
            "784-100-50-10, batch 100: bookkeeping of a step",
            _bookkeeping_percent(results),
            must=2.0,
            aim=1.0,
            unit="%",
            at_least=False,
        ),
        Verdict(
            "job accepted to first step, Ray already up",
            results.get("start_s", {}).get("median"),
            must=2.0,
            aim=1.0,
            unit="s",
            at_least=False,
        ),
        *(_memory(role, results.get("memory", {}).get("processes", {}).get(role)) for role in LIMITS),
    ]


def _bookkeeping_percent(results: Results) -> float | None:
    """Returns the part of a step in which the parameter server books what happened: progress, history, metrics."""
    job = results["speed"].get("paper-100", {}).get("jobs", {}).get("service")
    return 100 * job["server_us"].get("booking", 0.0) / job["step_us"] if job else None


def _memory(role: str, figures: Results | None) -> Verdict:
    measured = figures["largest"]["peak"] / _MB if figures else None
    must = figures["limit"] / _MB if figures else None
    return Verdict(f"peak memory of a {role}", measured, must, aim=None, unit="MB", at_least=False)
