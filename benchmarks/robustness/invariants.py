"""What must hold after every run, whatever happened in it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.robustness.census import Census, what_stays
from benchmarks.robustness.outcomes import Outcome, outcome_of
from benchmarks.robustness.run import Run
from benchmarks.robustness.scenario import Scenario
from nablad.v1 import jobs_pb2

__all__ = ["INVARIANTS", "Window", "broken"]

INVARIANTS = {
    "A": "each accepted gradient counts exactly once: steps, history and events are those of the undisturbed run",
    "B": "the model's file is, bit for bit, that of the undisturbed run",
    "C": "the job ends by itself, and goes on without a stall beyond the row's limit",
    "D": "processes, descriptors, shared memory, files and CPUs are back within 60 s",
    "E": "another job keeps stepping",
}
_END_SECONDS = 150.0
_BYSTANDER_SECONDS = 10.0


@dataclass(frozen=True)
class Window:
    """From the submission of a run's job to its end, on the monotonic clock.

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
    found["D"] += what_stays(run.service, before)
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
