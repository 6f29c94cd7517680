"""Processes that have to end by themselves."""

import subprocess

import pytest

from tests.harness import processes
from tests.harness.processes import Departure


def test_who_goes_in_time_is_not_left() -> None:
    """Also who was gone before anybody looked."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as going:
        departure = Departure({gone.pid: "true", going.pid: "cat"})
        assert departure.pids == {going.pid}
    assert departure.left() == []
    assert departure.pids == set()


def test_who_stays_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its command line; and goes on being one that should have gone."""
    monkeypatch.setattr(processes, "_SECONDS", 0.0)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as staying:
        departure = Departure({staying.pid: "cat and mouse"})
        (sentence,) = departure.left()
        assert str(staying.pid) in sentence
        assert "cat and mouse" in sentence
        assert departure.pids == {staying.pid}
