"""Results folder: reports are committed, the raw data that they were made from lies beside them and is not."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "write_report"]

FOLDER = Path(__file__).parents[1] / "results"
"""Git ignores its JSON files."""


def write_report(name: str, document: str, raw: Mapping[str, Any], folder: Path = FOLDER) -> None:
    """Writes ``NAME.md`` and ``NAME.json``.

    Args:
        name: Of the benchmark.
        document: Markdown: medians, spread and the machine.
        raw: Every measurement; may hold dataclasses.
        folder: Exists.
    """
    (folder / f"{name}.md").write_text(document + "\n", encoding="utf-8")
    (folder / f"{name}.json").write_text(json.dumps(raw, indent=2, default=asdict) + "\n", encoding="utf-8")
