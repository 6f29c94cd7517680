"""Invariants of every run, whatever happened in it; among them the job's results, compared bit by bit."""

import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nablad.v1 import jobs_pb2
from tests.harness import HarnessError
from tests.harness.processes import Census, what_stays
from tests.harness.run import Run
from tests.harness.scenarios import Scenario
from tests.harness.service import Service
from tests.harness.works import Arithmetic, Work

__all__ = ["INVARIANTS", "Outcome", "References", "Window", "broken", "outcome_of"]

INVARIANTS = {
    "A": "each accepted gradient counts exactly once: steps, history and events are those of the undisturbed run",
    "B": "the model's file is, bit for bit, that of the undisturbed run",
    "C": "the job ends by itself, and goes on without a stall beyond the row's limit",
    "D": "processes, descriptors, shared memory, files and CPUs are back within 60 s",
    "E": "another job keeps stepping",
}
_END_SECONDS = 150.0
_BYSTANDER_SECONDS = 10.0
# What is not decided by the job alone.
_OF_THE_RUN = ("time", "attempt", "samples_per_second")


@dataclass(frozen=True)
class Outcome:
    """Outcome of a job that must not depend on any fault.

    Attributes:
        model_sha256: Of the model's file.
        steps: Updates of the weights, as the receipt counts them.
        epochs: The figures of each epoch.
        sampled_steps: The figures of the steps that are kept.
    """

    model_sha256: str
    steps: int
    epochs: list[dict[str, Any]]
    sampled_steps: list[dict[str, Any]]

    def differences(self, reference: "Outcome") -> Iterator[str]:
        """Sentences on every figure that is not the reference's; none on the weights."""
        if self.steps != reference.steps:
            yield f"{self.steps} steps were made, not {reference.steps}"
        for what in ("epochs", "sampled_steps"):
            ours, theirs = getattr(self, what), getattr(reference, what)
            if len(ours) != len(theirs):
                yield f"the history has {len(ours)} {what}, not {len(theirs)}"
            elif different := [mine for mine, other in zip(ours, theirs, strict=True) if mine != other]:
                yield f"{len(different)} {what} of the history differ, the first is {different[0]}"


class References:
    """The outcomes of undisturbed jobs; each is run once, when it is needed first."""

    def __init__(self) -> None:
        self._outcomes: dict[Arithmetic, Outcome] = {}
        self._lock = threading.Lock()

    def of(self, arithmetic: Arithmetic, service: Service) -> Outcome:
        """Raises HarnessError if it did not succeed at once."""
        with self._lock:
            if arithmetic not in self._outcomes:
                self._outcomes[arithmetic] = _undisturbed(arithmetic, service)
            return self._outcomes[arithmetic]


def outcome_of(service: Service, job: jobs_pb2.Job) -> Outcome:
    """Returns the outcome of a job that has succeeded."""
    model = (service.data_directory / "models" / f"{job.model_id}.safetensors").read_bytes()
    return Outcome(
        hashlib.sha256(model).hexdigest(),
        service.client.receipt(job.job_id).steps,
        [_figures(point) for point in service.client.history(job.job_id)],
        [_figures(point) for point in service.client.history(job.job_id, steps=True)],
    )


def _undisturbed(arithmetic: Arithmetic, service: Service) -> Outcome:
    job_id = service.client.submit(Work(arithmetic).spec("reference")).job_id
    for _ in service.client.watch(job_id):
        pass
    job = service.client.job(job_id)
    if job.state != jobs_pb2.JOB_STATE_SUCCEEDED or job.attempt != 1:
        raise HarnessError(f"The undisturbed job should have succeeded at once: attempt {job.attempt}, {job.reason}")
    outcome = outcome_of(service, job)
    if outcome.steps != arithmetic.steps or len(outcome.epochs) != arithmetic.epochs:
        raise HarnessError(
            f"The undisturbed job should have made {arithmetic.steps} steps in {arithmetic.epochs} epochs, but made "
            f"{outcome.steps} in {len(outcome.epochs)}"
        )
    return outcome


def _figures(point: jobs_pb2.HistoryPoint) -> dict[str, Any]:
    return {field.name: value for field, value in point.ListFields() if field.name not in _OF_THE_RUN}


@dataclass(frozen=True)
class Window:
    """Window from the submission of a run's job to its end, on the monotonic clock.

    Attributes:
        from_s: Its begin.
        to_s: Its end.
    """

    from_s: float
    to_s: float


def broken(run: Run, scenario: Scenario, before: Census, reference: Outcome, from_s: float) -> dict[str, list[str]]:
    """Sentences on what does not hold, by invariant; waits for the job's end first.

    Args:
        run: Its scenario has done what it does.
        scenario: Which one that was.
        before: What the service had taken of the machine when it had nothing to do.
        reference: What the undisturbed job left.
        from_s: When the run began, on the monotonic clock.
    """
    ended = run.trace.wait_until_ended(_END_SECONDS)
    window = Window(from_s, time.monotonic())
    job = run.service.client.job(run.trace.job_id)
    found: dict[str, list[str]] = {name: [] for name in INVARIANTS}
    found["C"] += [*run.broken, *_ending(run, scenario, job, ended=ended)]
    found["A"] += run.trace.faults
    if job.state == jobs_pb2.JOB_STATE_SUCCEEDED:
        outcome = outcome_of(run.service, job)
        found["A"] += outcome.differences(reference)
        if outcome.model_sha256 != reference.model_sha256:
            found["B"].append(f"the model is {outcome.model_sha256[:8]}…, not {reference.model_sha256[:8]}…")
    found["D"] += what_stays(run.service.census, before)
    if scenario.spares_others:
        found["E"] += _bystander(run, window)
    return found


def _ending(run: Run, scenario: Scenario, job: jobs_pb2.Job, *, ended: bool) -> Iterator[str]:
    if not ended:
        yield f"the job had not ended after {_END_SECONDS:.0f} s: {job.reason}"
    elif job.state != jobs_pb2.JOB_STATE_SUCCEEDED:
        yield f"the job is {jobs_pb2.JobState.Name(job.state)}: {job.reason}"
    if (count := sum(each.spec.name == run.name for each in run.service.client.jobs())) != 1:
        yield f"there are {count} jobs where one was submitted"
    if (stall_s := run.trace.longest_stall_s()) > scenario.stall_limit_s:
        yield f"no step was made for {stall_s:.1f} s, longer than {scenario.stall_limit_s:.0f} s"
    if run.faults and scenario.needs_notice and not _notices(run):
        yield "no event tells of it"


def _notices(run: Run) -> list[jobs_pb2.Event]:
    return [event for event in run.trace.events if event.WhichOneof("what") == "notice"]


def _bystander(run: Run, window: Window) -> Iterator[str]:
    bystander = run.service.bystander
    assert bystander is not None
    samples = [sample for sample in bystander.samples if window.from_s <= sample.at_s <= window.to_s]
    if len(samples) < 2:
        yield "the other job made no step"
    if (stall_s := bystander.longest_stall_s(window.from_s, window.to_s)) > _BYSTANDER_SECONDS:
        yield f"the other job made no step for {stall_s:.1f} s"
    told = [event for event in bystander.events if event.attempt > 1 or event.WhichOneof("what") == "worker_joined"]
    if len(told) > 1:
        yield f"the other job was disturbed: {told[-1].message}"
