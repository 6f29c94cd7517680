"""The tiers of tests: `make test`, `make test-system` and `make test-faults`."""

import re
from itertools import product
from pathlib import Path

import pytest

MAKEFILE = (Path(__file__).parents[1] / "Makefile").read_text(encoding="utf-8")
TIERS = dict(re.findall(r"^(FAST|SYSTEM|FAULTS) := (.+)$", MAKEFILE, re.MULTILINE))


def _tiers(**markers: bool) -> list[str]:
    """Names of the tiers that have a test with these markers; a marker expression is one of Python's, too."""
    return [name for name, expression in TIERS.items() if eval(expression, {}, markers)]  # noqa: S307


@pytest.mark.parametrize(("system", "faults", "happy"), list(product((False, True), repeat=3)))
def test_a_test_is_in_one_tier(system: bool, faults: bool, happy: bool) -> None:
    """Whatever its markers are; one that is happy and has faults would be in two: conftest.py refuses it."""
    tiers = _tiers(system=system, faults=faults, happy=happy)
    assert len(tiers) == (2 if happy and faults else 1)


def test_every_tier_has_a_command() -> None:
    """Nothing else selects tests."""
    assert list(TIERS) == ["FAST", "SYSTEM", "FAULTS"]
    assert re.findall(r'-m "\$\((\w+)\)"', MAKEFILE) == list(TIERS)


def test_the_tiers_are_made_of_registered_markers(pytestconfig: pytest.Config) -> None:
    """The markers are registered: an expression with a misspelt one would select nothing, and say nothing."""
    registered = {line.partition(":")[0] for line in pytestconfig.getini("markers")}
    used = set(re.findall(r"\w+", " ".join(TIERS.values()))) - {"not", "and", "or"}
    assert used == {"system", "faults", "happy"} <= registered
