"""ARCHITECTURE.md: what it names is there, and it stays short enough to be read."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
_FOLDERS = ("nablad", "workers", "service", "proto", "deploy", "benchmarks", "tests", "docs")


def _is_there(name: str) -> bool:
    return bool(list(ROOT.glob(name))) or any(True for folder in _FOLDERS for _ in (ROOT / folder).rglob(name))


def test_every_file_that_it_names_exists() -> None:
    """Whole paths, or the last parts of them where the paragraph says the folder; a star stands for any name."""
    named = set(re.findall(r"`([\w./*]*(?:/|\.py|\.proto|\.md|\.toml))`", PAGE))
    assert len(named) > 50
    missing = {name for name in named if not _is_there(name.rstrip("/"))}
    assert missing == set()


def test_every_link_leads_somewhere() -> None:
    """Pages of the repository."""
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_it_can_be_read_at_one_sitting() -> None:
    """At most 250 lines: what is longer belongs into pages of its own."""
    assert PAGE.count("\n") <= 250
