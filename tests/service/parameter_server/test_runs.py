"""Runs: how they hear of workers whose results are on their way."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.parameter_server.progress.attempt_statistics import ACTIVITIES
from service.parameter_server.runs import Runs
from service.parameter_server.shard.step_core import CoreReport, MadeSteps, Status
from service.parameter_server.transport.members import Member
from workers.runtime.process_statistics import Stopwatch
from workers.transport.run_memory import WorkerMemory, worker_memory_bytes
from workers.transport.shared_memory import SharedMemory
from workers.transport.tickets import Ticket, TicketKind

_PARTS = 3


class FakeCore:
    """A core that makes no step, because each call ends with one status.

    Attributes:
        arrived: Parts whose results have arrived.
    """

    def __init__(self, status: Status) -> None:
        self.arrived: set[int] = set()
        self.times, self.most_steps = np.zeros(2), 8
        self._report = CoreReport(status, MadeSteps([], [], {}, np.zeros(0)), {})

    def begin_run(self, *_: object) -> None:
        """Begins nothing."""

    def make_steps(self, *_: object) -> CoreReport:
        """Makes nothing."""
        return self._report

    def has_result(self, part: int) -> bool:
        """Returns whether the result of a part has arrived."""
        return part in self.arrived


@pytest.mark.parametrize("status", [Status.LATER, Status.INTERRUPTED])
def test_a_result_of_several_is_a_sign_of_life(status: Status) -> None:
    """Whatever ends the calls: a worker with many parts is not silent while their results come, one by one."""
    core = FakeCore(status)
    memory = SharedMemory.create("worker", worker_memory_bytes("f8", 5, _PARTS), others_may_write=True)
    connection: Any = SimpleNamespace(run_memory=WorkerMemory(memory, "f8", 5, _PARTS))
    member = Member("w", connection, "it joined")
    coordinator: Any = SimpleNamespace(stopwatch=Stopwatch(ACTIVITIES), wanted_steps=lambda _: None)
    runs = Runs(core)  # type: ignore[arg-type]
    runs.begin({member: [Ticket(0, TicketKind.GRADIENT, part) for part in range(_PARTS)]}, 0.0)
    heard = []
    for now, arrived in enumerate([set(), {1}, {1}, {1, 2}, {1, 2}], start=1):
        core.arrived = arrived
        runs.make_steps(coordinator, float(now))
        heard.append(member.heard)
        assert runs.is_waited_for("w")
    assert heard == [0, 2, 2, 4, 4]
