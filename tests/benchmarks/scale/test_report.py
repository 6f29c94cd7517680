"""The document holds what was measured and predicted."""

import json
from dataclasses import asdict

from benchmarks.scale.check import Checked
from benchmarks.scale.quantities import Parts
from benchmarks.scale.report import markdown
from benchmarks.scale.results import Predictions, Results


def _results(parts: Parts) -> Results:
    checked = Checked("784-10", 500, 2, "shared", 1e-3, 1.1e-3, 0.9e-3, 7e-4, 6e-4, 2e-4, 1e-4)
    return Results("2026-01-02", {"CPU": "a fast one"}, [0.02, 0.3], parts, [checked], Predictions.of(parts))


def test_errors_are_shown_with_their_sign(parts: Parts) -> None:
    """A prediction that is too short is off to the negative side."""
    text = markdown(_results(parts))
    assert "-10%" in text
    assert "off by 10%" in text
    assert "0.30 at most" in text


def test_every_size_and_link_has_its_row(parts: Parts) -> None:
    """10^5 to 10^9 weights over shared memory and two networks, in two tables; and as a column in one."""
    text = markdown(_results(parts))
    for link in ("one host, shared", "25 Gbit/s", "10 Gbit/s"):
        assert f"### {link}" in text
    for exponent in range(5, 10):
        assert text.count(f"| 10^{exponent} ") + text.count(f" 10^{exponent} |\n") >= 7


def test_results_are_plain(parts: Parts) -> None:
    """They go into a JSON file as they are."""
    assert json.loads(json.dumps(asdict(_results(parts))))["parts"]["gather_s"] == parts.gather_s
