"""What a job left, in a form that is compared bit by bit; and what the same job leaves when nobody disturbs it."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.errors import JobError
from benchmarks.robustness.service import Service
from benchmarks.robustness.works import Arithmetic, Work
from nablad.v1 import jobs_pb2

__all__ = ["Outcome", "References", "outcome_of"]

# What is not decided by the job alone.
_OF_THE_RUN = ("time", "attempt", "samples_per_second")


@dataclass(frozen=True)
class Outcome:
    """What must not depend on any fault.

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
        """Raises JobError if it did not succeed at once."""
        with self._lock:
            if arithmetic not in self._outcomes:
                self._outcomes[arithmetic] = _undisturbed(arithmetic, service)
            return self._outcomes[arithmetic]


def outcome_of(service: Service, job: jobs_pb2.Job) -> Outcome:
    """Of a job that has succeeded."""
    model = (service.data_dir / "models" / f"{job.model_id}.safetensors").read_bytes()
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
        raise JobError(f"The undisturbed job should have succeeded at once: attempt {job.attempt}, {job.reason}")
    outcome = outcome_of(service, job)
    if outcome.steps != arithmetic.steps or len(outcome.epochs) != arithmetic.epochs:
        raise JobError(
            f"The undisturbed job should have made {arithmetic.steps} steps in {arithmetic.epochs} epochs, but made "
            f"{outcome.steps} in {len(outcome.epochs)}"
        )
    return outcome


def _figures(point: jobs_pb2.HistoryPoint) -> dict[str, Any]:
    return {field.name: value for field, value in point.ListFields() if field.name not in _OF_THE_RUN}
