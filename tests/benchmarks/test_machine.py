"""Measurements wait for a calm machine."""

import pytest

from benchmarks import machine


def test_a_calm_machine_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """One look is enough, and it is kept."""
    monkeypatch.setattr(machine, "_cpus_in_use", lambda: 0.1)
    stage = machine.Stage(patience_s=60)
    stage.clear("something")
    (look,) = stage.looks
    assert not look.disturbed
    assert look.cpus_in_use == 0.1


def test_a_busy_machine_is_waited_for_until_it_is_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as it takes."""
    in_use = iter([1.9, 0.8, 0.0])
    monkeypatch.setattr(machine, "_cpus_in_use", lambda: next(in_use))
    stage = machine.Stage(patience_s=60)
    stage.clear("something")
    assert stage.looks[0].cpus_in_use == 0.0
    assert next(in_use, None) is None


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The measurement is made all the same, and is known as disturbed; without patience nobody looks."""
    monkeypatch.setattr(machine, "_cpus_in_use", lambda: 2.0)
    stage = machine.Stage(patience_s=1e-9)
    stage.clear("something")
    assert stage.looks[0].disturbed
    hasty = machine.Stage(patience_s=0)
    hasty.clear("something")
    assert not hasty.looks


def test_a_library_that_is_not_there_is_said_to_be_missing() -> None:
    """Works without rivals that need it can be measured all the same."""
    facts = machine.describe(["nablad", "no-such-distribution"])
    assert facts["no-such-distribution"] == "not installed"
    assert facts["nablad"] != "not installed"
