"""Markdown tables that are also legible as they stand, the figures in them, and the list of facts about a machine."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["machine_section", "spread", "table"]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """The first columns, which hold words, to the left; the others, which hold figures, to the right.

    Args:
        heads: Of the columns.
        rows: A cell for each column.
        words: How many columns hold words.
    """
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    rule = ["-" * width if number < words else "-" * (width - 1) + ":" for number, width in enumerate(widths)]
    lines = [
        [cell.ljust(width) if number < words else cell.rjust(width) for number, (cell, width) in enumerate(cells)]
        for cells in (zip(line, widths, strict=True) for line in (heads, rule, *rows))
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spread(figures: dict[str, Any], form: str = ",.0f", unit: float = 1.0) -> str:
    """Median (minimum–maximum), each divided by `unit`."""
    median, minimum, maximum = (format(figures[name] / unit, form) for name in ("median", "minimum", "maximum"))
    return f"{median} ({minimum}–{maximum})"


def machine_section(facts: Mapping[str, Any]) -> str:
    """Section that describes the machine, and what else belongs to the whole page."""
    return "## Machine\n\n" + "\n".join(f"- {name}: {value}" for name, value in facts.items())
