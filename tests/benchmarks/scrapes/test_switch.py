"""What is left of figures while nobody wants them."""

from ctypes import c_bool

import numpy as np
import pytest

from benchmarks.scrapes.switch import METHODS, obey
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.image import Snapshot
from service.parameter_server.progress.telemetry import Totals
from service.parameter_server.shard.weights import Weights
from workers.mathematics.optimizers import optimizer
from workers.runtime.process_usage import Usage, UsageMeter
from workers.runtime.stopwatch import Stopwatch


@pytest.fixture
def wanted(monkeypatch: pytest.MonkeyPatch) -> c_bool:
    """Whether this process makes figures, until the end of the test."""
    for owner, name, _ in METHODS:
        monkeypatch.setattr(owner, name, getattr(owner, name))
    switch = c_bool(True)
    obey(switch)
    return switch


def test_figures_are_made_while_they_are_wanted(wanted: c_bool) -> None:
    """As without the switch; and again after a while in which they were not."""
    now = [0.0]
    stopwatch, meter = Stopwatch(["a"], lambda: now[0]), UsageMeter()
    for now[0], wanted.value, counted in ((1.0, True, 1.0), (3.0, False, 1.0), (6.0, True, 4.0)):
        stopwatch.lap("a")
        assert (stopwatch.seconds["a"], stopwatch.mark) == (counted, now[0])
        assert (meter.read() == Usage(0.0, 0.0)) is not wanted.value
    totals = Totals()
    for wanted.value, activities in ((True, 4), (False, 0), (True, 4)):
        assert len(totals.message([], {}, []).worker_seconds) == activities


def test_the_weights_are_the_same_without_norms(wanted: c_bool) -> None:
    """Only what is told of an update is left out."""
    gradient = np.arange(6, dtype=np.float32)
    told, untold = _weights(), _weights()
    assert told.update((gradient,), 2, with_norms=True) is not None
    wanted.value = False
    assert untold.update((gradient,), 2, with_norms=True) is None
    assert told.parameters.tobytes() == untold.parameters.tobytes()


def _weights() -> Weights:
    start = Snapshot(ps_pb.TrainingState(), np.ones(6, np.float32))
    return Weights(optimizer("sgd", 0.25), start, [0, 4], keep_best=False)
