"""Runs of a scenario, one after the other over one service."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from nablad.errors import NablaError
from tests.harness import HarnessError
from tests.harness.invariants import INVARIANTS, References, broken
from tests.harness.run import Run
from tests.harness.scenarios import Scenario
from tests.harness.service import Service
from tests.harness.works import Arithmetic, Work, draw_work

__all__ = ["Result", "Runner", "run_scenario", "what_is_left"]


_MORE_TRIES = 4


@dataclass(frozen=True)
class Result:
    """Result of one run.

    Attributes:
        scenario: Its name.
        seed: Repeats what was drawn.
        work: What the job was.
        faults: How many were really injected.
        attempts: That the job took.
        stall_s: The longest time without a step, in seconds.
        seconds: That the run took.
        broken: Sentences on what does not hold, by invariant.
    """

    scenario: str
    seed: int
    work: Work
    faults: int
    attempts: int
    stall_s: float
    seconds: float
    broken: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, kept: dict[str, Any]) -> Self:
        """Reads a result that was kept as JSON."""
        work = kept["work"]
        return cls(**{**kept, "work": Work(**{**work, "arithmetic": Arithmetic(**work["arithmetic"])})})

    @property
    def holds(self) -> bool:
        """True if every invariant holds."""
        return not any(self.broken.values())


class Runner:
    """Disturbs one job after the other of a service."""

    def __init__(self, service: Service, scenario: Scenario, references: References) -> None:
        """Starts the bystander, if the scenario must spare it and there is none."""
        self._service = service
        self._scenario = scenario
        self._references = references
        if scenario.spares_others and service.bystander is None:
            service.start_bystander()
        self._before = service.census()

    def run(self, seed: int) -> Result:
        """One run; when its job ends before the fault comes, another one is drawn.

        Departures of processes are not waited for: the service's list of them tells later.
        """
        # A seed repeats a run; nothing is kept secret by it.
        draw = random.Random(f"{self._scenario.name} {seed}")
        result = self._run(seed, draw)
        for _ in range(_MORE_TRIES):
            if not result.holds or result.faults:
                break
            result = self._run(seed, draw)
        return result

    def _run(self, seed: int, draw: random.Random) -> Result:
        work = draw_work(draw)
        reference = self._references.of(work.arithmetic, self._service)
        run = Run(self._service, work, seed, draw)
        from_s = time.monotonic()
        try:
            self._scenario.disturb(run)
            found = broken(run, self._scenario, self._before, reference, from_s)
            attempts = self._service.client.job(run.trace.job_id).attempt
            run.trace.close()
        except (HarnessError, NablaError) as error:
            found, attempts = {name: [] for name in INVARIANTS} | {"C": [f"{type(error).__name__}: {error}"]}, 0
        stall_s = run.trace.longest_stall_s() if hasattr(run, "trace") else 0.0
        seconds = time.monotonic() - from_s
        return Result(self._scenario.name, seed, work, run.faults, attempts, stall_s, seconds, found)


def run_scenario(
    scenario: Scenario, seeds: Sequence[int], references: References, tell: Callable[[Result], None]
) -> list[Result]:
    """Runs a scenario with each seed over a service of its own, and stops this.

    Args:
        scenario: What is done.
        seeds: One for each run.
        references: Of undisturbed jobs.
        tell: Told each result as it comes.
    """
    results: list[Result] = []
    with Service() as service:
        runner = Runner(service, scenario, references)
        for seed in seeds:
            results.append(runner.run(seed))
            tell(results[-1])
        results[-1].broken.setdefault("D", []).extend(what_is_left(service))
    return results


def what_is_left(service: Service) -> list[str]:
    """Stops a service, waits for what has to end, and says what does not, as sentences."""
    found = [] if (code := service.stop()) == 0 else [f"the service ended with exit code {code}"]
    service.expect_departure(of_daemon=True)
    found += [sentence for departure in service.departures for sentence in departure.left()]
    found += [f"{path} is left" for path in service.temporary.iterdir()]
    return found
