"""The results for people: the dictionary of the results file as Markdown."""

from collections.abc import Sequence
from typing import Any

__all__ = ["markdown"]

_ACTIVITIES = ("computing", "waiting", "exchanging")


def markdown(results: dict[str, Any]) -> str:
    """All tables; README.md says how to read them."""
    return "\n\n".join(
        [
            "# MNIST\n\nMade by `benchmarks/mnist.py`; README.md says what is measured and how to read it.",
            _machine(results),
            _accuracy(results["accuracy"]),
            _speed(results),
            _steps(results["speed"]),
            _noise(results),
        ]
    )


def _machine(results: dict[str, Any]) -> str:
    facts = {"date": results["date"], **results["machine"]}
    return "## Machine\n\n" + "\n".join(f"- {name}: {value}" for name, value in facts.items())


def _accuracy(accuracy: dict[str, Any]) -> str:
    epochs = accuracy["epochs"]
    heads = ["epoch", "training cost", "training accuracy", "validation cost", "validation accuracy"]
    rows = [
        [
            f"{epoch['epoch']}",
            f"{epoch['training_cost']:.5f}",
            f"{epoch['training_accuracy']:.2%}",
            f"{epoch['validation_cost']:.5f}",
            f"{epoch['validation_accuracy']:.2%}",
        ]
        for epoch in epochs
    ]
    return (
        f"## Accuracy\n\nAfter {len(epochs)} epochs, {epochs[-1]['validation_accuracy']:.2%} of the 10,000 test images "
        f"are right. The job took {accuracy['seconds']:.0f} s from its submission to its end.\n\n{_table(heads, rows)}"
    )


def _speed(results: dict[str, Any]) -> str:
    heads = ["batch size", "service", "plain numpy", "limit of the BLAS", "service / plain", "service / limit"]
    rows = [
        [
            f"{contest['batch_size']}",
            *(_spread(contest["samples_per_second"][who]) for who in ("service", "plain_numpy", "blas_limit")),
            f"{contest['ratio_to_plain_numpy']:.2f}",
            f"{contest['ratio_to_blas_limit']:.2f}",
        ]
        for contest in results["speed"]
    ]
    costs = [
        f"At batch size {contest['batch_size']}, the training cost of the last epoch is {contest['cost_service']:.6f} "
        f"in the service and {contest['cost_plain_numpy']:.6f} in plain numpy; no epoch's costs differ by more than "
        f"{contest['largest_cost_difference']:.1e} of their size."
        for contest in results["speed"]
    ]
    return (
        "## Speed\n\nSamples per second: median (minimum–maximum) over all epochs but the first of each repetition "
        f"(repetitions: {results['repetitions']}, epochs: {results['steady_epochs']}).\n\n"
        f"{_table(heads, rows)}\n\n" + "\n\n".join(costs)
    )


def _steps(speed: list[dict[str, Any]]) -> str:
    heads = ["batch size", "a step", *_ACTIVITIES, "acceptance to first step, s"]
    rows = [
        [
            f"{contest['batch_size']}",
            *(f"{contest['step_ms'][what]:.2f}" for what in ("step", *_ACTIVITIES)),
            _spread(contest["start_s"], ".1f"),
        ]
        for contest in speed
    ]
    return (
        "## Where a step's time goes\n\nMilliseconds of a mean step, and what a worker does in them: median over the "
        f"repetitions, all epochs.\n\n{_table(heads, rows)}"
    )


def _noise(results: dict[str, Any]) -> str:
    calm = results["calm"]
    disturbed = sum(look["disturbed"] for look in calm)
    return (
        "## Noise\n\n"
        f"Just before the {len(calm)} measurements, {_looks(calm, 'cpus_in_use')} CPUs were in use and the load "
        f"average was {_looks(calm, 'load')}; {disturbed} of them began although the machine had not become calm. What "
        "begins during a measurement shows only in its minimum and maximum."
    )


def _looks(calm: list[dict[str, Any]], name: str) -> str:
    values = [look[name] for look in calm]
    return f"{min(values):.2f}–{max(values):.2f}"


def _spread(spread: dict[str, float], form: str = ",.0f") -> str:
    return f"{spread['median']:{form}} ({spread['minimum']:{form}}–{spread['maximum']:{form}})"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that is also legible as it stands."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [heads, ["-" * max(width - 1, 1) + ":" for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
