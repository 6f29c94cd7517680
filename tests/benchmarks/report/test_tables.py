"""Figures as people read them."""

from benchmarks.report.tables import spread, table


def test_words_stand_left_and_figures_right() -> None:
    """Columns are as wide as their widest cell, also where Markdown is not rendered."""
    assert table(["who", "speed"], [["we", "10"], ["others", "1,000"]]).splitlines() == [
        "| who    | speed |",
        "| ------ | ----: |",
        "| we     |    10 |",
        "| others | 1,000 |",
    ]


def test_a_spread_shows_its_middle_first() -> None:
    """In the unit that is asked for."""
    figures = {"median": 2500.0, "minimum": 1000.0, "maximum": 4000.0}
    assert spread(figures) == "2,500 (1,000–4,000)"
    assert spread(figures, ".1f", 1000) == "2.5 (1.0–4.0)"
