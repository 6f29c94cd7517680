"""Parts as a machine might have them, so that the model's algebra can be tested without measuring."""

import pytest

from benchmarks.scale.quantities import Computing, Curve, Messages, Parts


def _curve(gigabytes_per_second: float) -> Curve:
    """Half as fast out of the cache."""
    return Curve((4e5, 4e7), (1e-9 / gigabytes_per_second, 2e-9 / gigabytes_per_second))


@pytest.fixture
def parts() -> Parts:
    """Round figures."""
    messages = Messages(order_s=20e-6, report_s=30e-6, update_s=20e-6, send_s=25e-6, round_trip_s=50e-6)
    return Parts(
        computing=Computing(call_s=20e-6, flop_s=1e-11, node_sample_s=4e-9, weight_s=5e-10),
        gather_s=3e-7,
        messages={"shared": messages, "inline": messages},
        report_per_worker_s=5e-8,
        inspect=_curve(40),
        reduce=_curve(20),
        update=_curve(10),
        read=_curve(40),
        send=_curve(10),
        receive=_curve(15),
        loopback=_curve(8),
    )
