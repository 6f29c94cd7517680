"""Measured parts as functions."""

import pytest

from benchmarks.scale.forms import Form
from benchmarks.scale.quantities import Computing, Curve, network_link

CURVE = Curve((1e3, 1e5), (1e-9, 3e-9))


def test_a_curve_goes_through_what_was_measured() -> None:
    """Exactly at its sizes, half way at their geometric mean, and with the same rate beyond its ends."""
    for size, seconds in ((1e3, 1e-6), (1e5, 3e-4), (1e4, 2e-5), (10, 1e-8), (1e7, 3e-2)):
        assert CURVE.seconds(size) == pytest.approx(seconds)


def test_nothing_takes_no_time() -> None:
    """No bytes, no seconds."""
    assert CURVE.seconds(0) == 0


def test_a_gradient_is_a_sum_of_four_terms() -> None:
    """Call, matrix products, activations, weights."""
    form = Form((4, 3, 2))
    assert Computing(1, 0, 0, 0).seconds(form, 7) == 1
    assert Computing(0, 1, 0, 0).seconds(form, 7) == 7 * form.flops
    assert Computing(0, 0, 1, 0).seconds(form, 7) == 7 * 5
    assert Computing(0, 0, 0, 1).seconds(form, 7) == form.weights


def test_a_network_moves_bits() -> None:
    """10 Gbit/s are 1.25 GB/s."""
    wire = network_link(10).wire
    assert wire
    assert wire.seconds(1.25e9) == pytest.approx(1)
