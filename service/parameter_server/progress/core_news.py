"""News of the step core: which code makes the steps, told when that changes for more than a moment."""

from collections.abc import Mapping
from typing import Final

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.progress.attempt_statistics import STEP_CORES

__all__ = ["StepCoreNews"]

# Other code that makes steps for less than these seconds, as after the loss of a worker, is no news.
_MOMENT_SECONDS: Final = 1.0

_CORES: Final = dict(zip(STEP_CORES, (spec_pb.STEP_CORE_NATIVE, spec_pb.STEP_CORE_PYTHON), strict=True))


class StepCoreNews:
    """Compares the steps that each code has made with those at the last look."""

    def __init__(self) -> None:
        """Has told nothing yet."""
        self._steps = dict.fromkeys(STEP_CORES, 0)
        self._told = ""  # code that the last sentence named
        self._since: float | None = None  # the first look at which other code had made steps

    def look(self, steps: Mapping[str, int], obstacle: str, now: float) -> list[ps_pb.TrainingEvent]:
        """Returns the events that new steps bring about: each code once, and a sentence where the code is news.

        Args:
            steps: Number of steps by the code that made them.
            obstacle: Why the last ones were made in Python; not read if they were not.
            now: Monotonic seconds.
        """
        made = [core for core in STEP_CORES if steps[core] > self._steps[core]]
        events = [ps_pb.TrainingEvent(step_core=_CORES[core]) for core in made if not self._steps[core]]
        self._steps.update(steps)
        if made and self._is_news(made[-1], now):
            self._told, self._since = made[-1], None
            change = ps_pb.StepCoreChange(step_core=_CORES[made[-1]], sentence=_sentence(made[-1], obstacle))
            events.append(ps_pb.TrainingEvent(core_changed=change))
        return events

    def _is_news(self, core: str, now: float) -> bool:
        if core == self._told:
            self._since = None
            return False
        if self._told and self._since is None:
            self._since = now
        return self._since is None or now - self._since >= _MOMENT_SECONDS


def _sentence(core: str, obstacle: str) -> str:
    if core == "native":
        return "steps are made in C (native step core)"
    return f"steps are made in Python{f': {obstacle}' if obstacle else ''}"
