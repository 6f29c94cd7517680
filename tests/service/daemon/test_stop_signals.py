"""Stop signals: the first ends the service in order, a later one at once."""

import pytest

from service.daemon.daemon import StopOrder, StopSignals


def _orders(*moments: float) -> list[StopOrder]:
    """Returns the meanings of signals at these moments, in seconds."""
    clock = iter(moments)
    signals = StopSignals(lambda: next(clock))
    return [signals.interpret_signal() for _ in moments]


def test_the_first_ends_it_in_order() -> None:
    """At whatever moment, zero included."""
    assert _orders(0.0) == _orders(1e9) == [StopOrder.IN_ORDER]


@pytest.mark.parametrize("between", [0.0, 0.001, 0.999])
def test_one_within_a_second_is_the_first_once_more(between: float) -> None:
    """As `timeout` sends it, to the process and to its group."""
    assert _orders(5.0, 5.0 + between) == [StopOrder.IN_ORDER, StopOrder.REPEATED]


def test_one_after_a_second_ends_it_at_once() -> None:
    """Also after many that did not count: the second is from the first on."""
    assert _orders(5.0, 6.0) == [StopOrder.IN_ORDER, StopOrder.AT_ONCE]
    assert _orders(5.0, 5.4, 5.8, 6.2)[1:] == [StopOrder.REPEATED, StopOrder.REPEATED, StopOrder.AT_ONCE]
