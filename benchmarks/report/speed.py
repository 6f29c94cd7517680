"""The requirements, and everybody's speed."""

from typing import Any

from benchmarks.contestants import CONTESTANTS, REFERENCE
from benchmarks.report.tables import spread, table

__all__ = ["speed", "verdicts"]

_OURS = "service"


def verdicts(requirements: list[dict[str, Any]]) -> str:
    """What was to be reached beside what was."""
    heads = ["requirement", "measured", "must", "aim", "outcome"]
    rows = [
        [
            verdict["what"],
            _figure(verdict["measured"], verdict["unit"]),
            _mark(verdict, "must"),
            _mark(verdict, "aim"),
            verdict["outcome"],
        ]
        for verdict in requirements
    ]
    missed = sum(verdict["outcome"] == "MISSED" for verdict in requirements)
    met = sum("reached" in verdict["outcome"] for verdict in requirements)
    return (
        f"## Requirements\n\nMet: {met} of {len(requirements)}. Missed: {missed}. Ratios are of medians in this "
        f"run.\n\n{table(heads, rows)}"
    )


def speed(results: dict[str, Any]) -> str:
    """One table for each work."""
    intro = (
        "## Speed\n\nSamples per second: median (minimum–maximum) over all epochs but the first of each repetition "
        f"(repetitions: {results['repetitions']}). *nablad is* says how many times as fast as this contestant it is. "
        "Everybody starts from the same weights and sees the same rows in every step; *cost differs by* is the largest "
        "difference of a training cost from that of numpy, relative, over all epochs of all repetitions."
    )
    return "\n\n".join([intro, *map(_work, results["speed"].values())])


def _work(work: dict[str, Any]) -> str:
    speeds, differences = work["samples_per_second"], work["cost_differences"]
    heads = ["contestant", "samples per second", "nablad is", "cost differs by"]
    rows = [
        [
            CONTESTANTS[name].title,
            spread(figures),
            f"{speeds[_OURS]['median'] / figures['median']:.2f} ×",
            _difference(name, differences),
        ]
        for name, figures in speeds.items()
    ]
    return (
        f"### {work['title']}\n\n{work['rows']:,} rows, {work['epochs']} epochs, learning rate "
        f"{work['learning_rate']:g}; training cost of the last epoch {work['last_cost']:.6f}.\n\n{table(heads, rows)}"
    )


def _difference(name: str, differences: dict[str, float]) -> str:
    return "–" if name == REFERENCE or name not in differences else f"{differences[name]:.1e}"


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.2f} {unit}"


def _mark(verdict: dict[str, Any], name: str) -> str:
    if verdict[name] is None:
        return "–"
    return f"{'≥' if verdict['at_least'] else '≤'} {_figure(verdict[name], verdict['unit'])}"
