"""Which code makes the steps is told at first, and after changes that last."""

import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.progress.core_news import StepCoreNews

IN_C = "steps are made in C (native step core)"
IN_PYTHON = "steps are made in Python: worker-2 sends its gradients inline"
OBSTACLE = "worker-2 sends its gradients inline"


class Reader:
    """Looks after each step."""

    def __init__(self) -> None:
        self.cores: list[spec_pb.StepCore.ValueType] = []
        self._news = StepCoreNews()
        self._steps = {"native": 0, "python": 0}

    def make_step(self, core: str, now: float, obstacle: str = OBSTACLE) -> list[str]:
        """What is told after a step that this core has made."""
        self._steps[core] += 1
        return self.look(now, obstacle)

    def look(self, now: float, obstacle: str = OBSTACLE) -> list[str]:
        """What is told now."""
        events: list[ps_pb.TrainingEvent] = self._news.look(self._steps, obstacle, now)
        self.cores += [event.step_core for event in events if event.step_core]
        return [event.core_changed.sentence for event in events if event.HasField("core_changed")]


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.mark.parametrize(("core", "told"), [("native", IN_C), ("python", IN_PYTHON)])
def test_the_first_step_is_told(reader: Reader, core: str, told: str) -> None:
    """At once, and never again while nothing changes."""
    assert reader.look(0.0) == []
    assert reader.make_step(core, 1.0) == [told]
    assert [reader.make_step(core, now) for now in (2.0, 9.0)] == [[], []]
    assert reader.look(99.0) == []


def test_steps_in_python_need_no_reason(reader: Reader) -> None:
    """Who has no core may not know why."""
    assert reader.make_step("python", 0.0, "") == ["steps are made in Python"]


def test_a_change_that_lasts_is_told(reader: Reader) -> None:
    """Once for each, with the reason of that moment."""
    reader.make_step("native", 0.0)
    assert [reader.make_step("python", now) for now in (10.0, 10.5, 11.0, 12.0)] == [[], [], [IN_PYTHON], []]
    assert [reader.make_step("native", now) for now in (20.0, 20.9, 21.1)] == [[], [], [IN_C]]


def test_a_change_for_a_moment_is_none(reader: Reader) -> None:
    """A lost worker's step, or two, in Python."""
    reader.make_step("native", 0.0)
    for now in (10.0, 20.0, 30.0):
        assert reader.make_step("python", now) == []
        assert reader.make_step("native", now + 0.9) == []


def test_a_long_step_is_no_lasting_change(reader: Reader) -> None:
    """However long it takes: nothing is told before a second one."""
    reader.make_step("native", 0.0)
    assert reader.make_step("python", 1000.0) == []
    assert reader.look(2000.0) == []
    assert reader.make_step("python", 3000.0) == [IN_PYTHON]


def test_receipts_know_of_every_core(reader: Reader) -> None:
    """Also of one that made a single step, which is no news."""
    for core in ("python", "native", "native", "python"):
        reader.make_step(core, 0.0)
    assert reader.cores == [spec_pb.STEP_CORE_PYTHON, spec_pb.STEP_CORE_NATIVE]
