"""The small functions that measure, on little work."""

import math
import tempfile
from collections.abc import Iterator
from typing import IO

import numpy as np
import pytest

from benchmarks.machine import Stage
from benchmarks.scale import quiet, synthetic
from benchmarks.scale.compute_parts import fit
from benchmarks.scale.echo import VALUE
from benchmarks.scale.forms import Form
from benchmarks.scale.line_parts import trip
from benchmarks.scale.parts import of_steps
from benchmarks.scale.processes import EpochSteps, quietest, run
from benchmarks.scale.quantities import Computing
from benchmarks.scale.server_parts import drive, vector_rates


@pytest.fixture
def log() -> Iterator[IO[str]]:
    """For what other processes say."""
    with tempfile.TemporaryFile("w+") as file:
        yield file


def test_a_fit_finds_the_costs_that_made_the_figures() -> None:
    """Where the seconds are such a sum, exactly; and no cost is negative where they are not."""
    true = Computing(2e-5, 1e-11, 4e-9, 5e-10)
    forms = [Form((784, h, h, 10)) for h in (32, 128, 512)]
    fitted = fit([(form, n, true.seconds(form, n)) for form in forms for n in (8, 64, 500)])
    for name in ("call_s", "flop_s", "node_sample_s", "weight_s"):
        assert getattr(fitted, name) == pytest.approx(getattr(true, name), rel=1e-6)
    assert fitted.worst_error < 1e-6
    odd = fit([(form, n, 1 / n) for form in forms for n in (8, 64, 500)])
    assert min(odd.call_s, odd.flop_s, odd.node_sample_s, odd.weight_s) >= 0
    assert odd.worst_error > 0.1


def test_a_driven_training_makes_every_step() -> None:
    """After n steps with gradients v of every worker's only row, the weights are down by n ε v; no gradient changed."""
    vectors = np.full((5, 100), 0.5)
    vectors[0] = 0
    seconds = drive(vectors[0], list(vectors[1:]), 7)
    assert vectors[0] == pytest.approx(-7 * VALUE * 0.5)
    assert (vectors[1:] == 0.5).all()
    assert all(math.isfinite(spent) for spent in seconds.values())
    assert seconds["inspecting"] > 0


def test_vectors_of_another_process_have_rates(log: IO[str]) -> None:
    """Each pass is measured, with vectors that the other process has written in each step."""
    rates = vector_rates(10_000, 5, dict.fromkeys(("inspecting", "reducing", "updating"), 0.0), log)
    assert all(rate > 0 for rate in rates.values())
    assert rates.keys() == {"inspect", "reduce", "update", "read"}


def test_a_trip_over_a_line_comes_back(log: IO[str]) -> None:
    """Weights there, gradient back, more than a socket takes at once; the CPU is not busy for longer than that."""
    send, receive, whole = trip(3_000_000, 2, log)
    assert send > 0
    assert receive > 0
    assert send + receive <= whole


@pytest.mark.parametrize("transport", ["shared", "inline"])
def test_real_processes_tell_their_steps(transport: str) -> None:
    """Of the epochs that both workers were there for; what a worker did adds up to about the step."""
    epochs = run(synthetic.spec((6, 4, 3), 8, 30, 2, transport), rows=8 * 50)
    assert 0 < len(epochs) < 30
    step = quietest(epochs)
    assert 0 < step.step_s < 1
    assert sum(step.server_s.values()) > 0
    assert sum(step.worker_s.values()) == pytest.approx(step.step_s, rel=0.5)


def test_messages_account_for_the_whole_step() -> None:
    """What is left when worker and server have done their work is latency, the sending of the report included."""
    server = {"waiting": 9.0, "receiving": 1.0, "inspecting": 2.0, "reducing": 3.0, "updating": 4.0, "dealing": 5.0}
    worker = {"gathering": 9.0, "computing": 6.0, "exchanging": 7.0, "waiting": 9.0}
    messages = of_steps(EpochSteps(30.0, worker, server))
    assert (messages.report_s, messages.update_s, messages.order_s, messages.send_s) == (6, 4, 5, 7)
    assert messages.round_trip_s == 30 - 6 - 4 - 5 - 6


def test_a_disturbed_measurement_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is left alone; and if it never is, the least disturbed one counts."""
    others = iter([0.0, 5.0, 5.0, 5.0])
    monkeypatch.setattr(quiet, "_others_seconds", lambda: next(others))
    values = iter("abc")
    measurer = quiet.Quiet(Stage(0), attempts=4)
    assert measurer.measure("something", lambda: next(values)) == "b"
    assert measurer.others_cpus == [0.0]
    others, values = iter([0.0, 1e12, 0.0, 1.0, 0.0, 1e12]), iter("abcd")
    assert quiet.Quiet(Stage(0), attempts=3).measure("something", lambda: next(values)) == "b"


def test_the_lower_quartile_is_one_of_the_values() -> None:
    """A quarter of them are below."""
    assert quiet.quiet([8.0, 1, 7, 2, 6, 3, 5, 4]) == 3
    assert quiet.quiet([5.0]) == 5
