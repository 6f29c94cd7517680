"""The page of all commands."""

from pathlib import Path

from nablad.cli.reference import reference


def test_the_page_is_fresh():
    """docs/cli.md is what `python -m nablad.cli.reference` prints now."""
    page = Path(__file__).parents[3] / "docs" / "cli.md"
    assert page.read_text() == reference(), "run: python -m nablad.cli.reference > docs/cli.md"
