"""Where the time of a step goes, from what the service's /metrics show of a job."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["METRICS", "Figures", "StepProfile", "read_figures", "step_profile", "steps", "transports"]

Figures = Mapping[tuple[str, str], float]  # by name of the metric, and activity or transport

_TRANSPORT_WORKERS = "nablad_job_transport_workers"
_WORKER_SECONDS = "nablad_job_worker_seconds_total"
_SERVER_SECONDS = "nablad_job_server_seconds_total"
_STEP_SECONDS = "nablad_job_step_seconds_sum"
_STEPS = "nablad_job_step_seconds_count"
METRICS = (_TRANSPORT_WORKERS, _WORKER_SECONDS, _SERVER_SECONDS, _STEP_SECONDS, _STEPS)

# The activities of a worker that are its own work and would remain if messages took no time.
_OWN_WORK = ("gathering", "computing")


@dataclass(frozen=True)
class StepProfile:
    """A mean step of a job.

    Attributes:
        step_us: Microseconds from one update to the next.
        worker_us: Of them, those that a worker spends on each activity, as the mean over the workers.
        server_us: Those that the parameter server spends on each.
    """

    step_us: float
    worker_us: dict[str, float]
    server_us: dict[str, float]

    @property
    def messages_us(self) -> float:
        """What is left when a worker's own work is taken off."""
        return self.step_us - sum(self.worker_us.get(activity, 0.0) for activity in _OWN_WORK)


def read_figures(lines: Iterable[str]) -> Figures:
    """The samples of one job, whatever activities and transports there are."""
    figures: dict[tuple[str, str], float] = defaultdict(float)
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            label = sample.labels.get("activity") or sample.labels.get("transport", "")
            figures[sample.name, label] += sample.value
    return figures


def step_profile(end: Figures, start: Figures, workers: int) -> StepProfile:
    """Of the steps between two looks; of all steps to the end, if there are none between them.

    Args:
        end: What had been counted at the end.
        start: What had been counted when the steps became steady.
        workers: Of the job.
    """
    if steps(end) == steps(start):
        start = {}
    spent = {key: value - start.get(key, 0.0) for key, value in end.items()}
    per_step_us = 1e6 / spent[_STEPS, ""]
    return StepProfile(
        spent[_STEP_SECONDS, ""] * per_step_us,
        {activity: s * per_step_us / workers for (name, activity), s in spent.items() if name == _WORKER_SECONDS},
        {activity: s * per_step_us for (name, activity), s in spent.items() if name == _SERVER_SECONDS},
    )


def steps(figures: Figures) -> float:
    """That are counted."""
    return figures.get((_STEPS, ""), 0.0)


def transports(figures: Figures) -> dict[str, int]:
    """The workers of the job by transport, those transports left out that none uses."""
    return {
        transport: int(workers)
        for (name, transport), workers in figures.items()
        if name == _TRANSPORT_WORKERS and workers
    }
