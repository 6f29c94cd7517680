"""What happened to a job, as marks over all of its graphs."""

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import AnnotationQuery

from deploy.grafana.boards.expressions import increase, of_job
from deploy.grafana.boards.variables import PROMETHEUS

__all__ = ["Marked", "of_job_events"]

_STEP = "15s"


class Marked(AnnotationQuery):
    """A query of Prometheus for marks, with the text that they show.

    Grafana's schema leaves annotation queries open for what a data source puts there. The SDK's type has only ``expr``.
    """

    def to_json(self) -> dict[str, object]:
        """With the title of the marks, and how close to each other they can be."""
        return super().to_json() | {"titleFormat": self.name, "step": _STEP}


@dataclass(frozen=True)
class _Event(Builder[AnnotationQuery]):
    """A mark wherever the expression is above 0."""

    name: str
    colour: str
    expression: str

    def build(self) -> AnnotationQuery:
        return Marked(name=self.name, datasource=PROMETHEUS, icon_color=self.colour, expr=self.expression)


def of_job_events() -> Sequence[Builder[AnnotationQuery]]:
    """Marks of the chosen job.

    The window reaches one scrape further than the step, so that nothing falls between two of them; neighbouring marks
    become one.
    """
    attempt, running = of_job("nablad_job_attempt"), of_job("nablad_job_running")
    # Between two attempts there is no series, so none that changes: an attempt is new if no such number was seen.
    seen = f"max_over_time({attempt}[$__range] offset $__rate_interval)"
    return (
        _Event("New attempt", "orange", f"{attempt} unless {seen} >= {attempt}"),
        _Event("Worker lost", "red", f"{increase(of_job('nablad_job_workers_lost_total'))} > 0"),
        _Event("Checkpoint written", "blue", f"{increase(of_job('nablad_job_checkpoints_total'))} > 0"),
        _Event("Job ended", "purple", f"changes({running}[$__rate_interval]) > 0 and {running} == 0"),
    )
