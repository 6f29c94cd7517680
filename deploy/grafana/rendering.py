"""Rendering of boards to the JSON that Grafana reads."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.boards import BOARDS

__all__ = ["FOLDER", "render", "rendered"]

FOLDER: Final = Path(__file__).parent / "dashboards"
"""Folder of the generated files."""


def render(board: Dashboard) -> str:
    """Returns a board as JSON; the same board gives the same text."""
    return json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def rendered() -> Iterator[tuple[Path, str]]:
    """Yields the file of each board, and its content."""
    for name, make in BOARDS.items():
        yield FOLDER / f"{name}.json", render(make())
