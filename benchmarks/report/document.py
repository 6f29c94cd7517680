"""All sections in their order; README.md says how to read them."""

from typing import Any

from benchmarks.report.jobs import memory, messages, starts, steps
from benchmarks.report.speed import speed, verdicts
from benchmarks.report.tables import table

__all__ = ["markdown"]


def markdown(results: dict[str, Any]) -> str:
    """Of whatever was measured."""
    sections = [
        "# MNIST\n\nMade by `make bench`; [README.md](../README.md) says what is measured and how to read it.",
        _machine(results),
        verdicts(results["requirements"]),
        speed(results),
        steps(results["speed"]),
    ]
    for name, section in {"messages": messages, "start_s": starts, "memory": memory, "accuracy": _accuracy}.items():
        if name in results:
            sections.append(section(results[name]))
    if results["calm"]:
        sections.append(_noise(results["calm"]))
    return "\n\n".join(sections)


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
        f"are right. The job took {accuracy['seconds']:.0f} s from its submission to its end.\n\n{table(heads, rows)}"
    )


def _noise(calm: list[dict[str, Any]]) -> str:
    disturbed = sum(look["disturbed"] for look in calm)
    return (
        f"## Noise\n\nJust before the {len(calm)} measurements, {_range(calm, 'cpus_in_use')} CPUs were in use and the "
        f"load average was {_range(calm, 'load')}; {disturbed} of them began although the machine had not become calm. "
        "What begins during a measurement shows only in its minimum and maximum."
    )


def _range(looks: list[dict[str, Any]], name: str) -> str:
    values = [look[name] for look in looks]
    return f"{min(values):.2f}–{max(values):.2f}"
