"""Annotations: events of a job as marks on its graphs."""

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import AnnotationQuery

from deploy.grafana.boards.expressions import increase, of_job
from deploy.grafana.boards.frame import PROMETHEUS

__all__ = ["Marked", "of_job_events"]

_STEP = "15s"


class Marked(AnnotationQuery):
    """Prometheus query for marks, with their title.

    Grafana's schema leaves annotation queries open for what a data source puts there. The SDK's type has only ``expr``.
    """

    def to_json(self) -> dict[str, object]:
        """Adds the title of the marks and the shortest distance between them."""
        return super().to_json() | {"titleFormat": self.name, "step": _STEP}


@dataclass(frozen=True)
class _Event(Builder[AnnotationQuery]):
    """Mark wherever the expression is above 0."""

    name: str
    colour: str
    expression: str

    def build(self) -> AnnotationQuery:
        return Marked(name=self.name, datasource=PROMETHEUS, icon_color=self.colour, expr=self.expression)


def of_job_events() -> Sequence[Builder[AnnotationQuery]]:
    """Returns the marks of the chosen job.

    The window is one scrape longer than the step, so that no event is missed; neighbouring marks become one.
    """
    attempt, running = of_job("nablad_job_attempt"), of_job("nablad_job_running")
    # Between two attempts there is no series, so changes() sees nothing: an attempt is new if its number is new.
    seen = f"max_over_time({attempt}[$__range] offset $__rate_interval)"
    return (
        _Event("New attempt", "orange", f"{attempt} unless {seen} >= {attempt}"),
        _Event("Worker lost", "red", f"{increase(of_job('nablad_job_workers_lost_total'))} > 0"),
        _Event("Checkpoint written", "blue", f"{increase(of_job('nablad_job_checkpoints_total'))} > 0"),
        _Event("Job ended", "purple", f"changes({running}[$__rate_interval]) > 0 and {running} == 0"),
    )
