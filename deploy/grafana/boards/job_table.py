"""Table of running jobs with links to their boards."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import table as table_panel
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import DataTransformerConfig, DynamicConfigValue

from deploy.grafana.boards.expressions import of_service, rate, total
from deploy.grafana.boards.frame import JOB
from deploy.grafana.boards.panels import Series, table

__all__ = ["running_jobs"]


@dataclass(frozen=True)
class _Column:
    """Column of the table."""

    title: str
    expression: str
    unit: str


_LEFT: Final = f"({of_service('nablad_job_planned_steps')} - {of_service('nablad_job_step')})"
_STEPS_PER_SECOND: Final = rate(of_service("nablad_job_steps_total"))

_COLUMNS: Final[Sequence[_Column]] = (
    _Column("Epoch", of_service("nablad_job_epoch"), units.Number),
    _Column("Epochs", of_service("nablad_job_epochs"), units.Number),
    _Column("Training cost", of_service("nablad_job_training_cost"), units.Number),
    _Column("Samples/s", of_service("nablad_job_samples_per_second"), units.Short),
    _Column("Time left", f"{_LEFT} / ({_STEPS_PER_SECOND} > 0)", units.DurationSeconds),
    _Column("Workers", of_service("nablad_job_workers_alive"), units.Number),
    _Column("Attempt", of_service("nablad_job_attempt"), units.Number),
)


def running_jobs() -> table_panel.Panel:
    """Returns a table with one line for each job that has an attempt."""
    panel = table(
        "Running jobs",
        "Jobs that have an attempt. Click a job to open its board. Time left is empty while a job makes no steps.",
        units.Number,
        *(Series(_of_running(column.expression), column.title) for column in _COLUMNS),
    )
    panel.transformations([_merged(), _named()])
    panel.override_by_name("Job", [DynamicConfigValue("links", [_link()])])
    for column in _COLUMNS:
        panel.override_by_name(column.title, [DynamicConfigValue("unit", column.unit)])
    return panel


def _of_running(expression: str) -> str:
    running = of_service("nablad_job_running")
    return total(f"{expression} and on (job_id, instance) {running} == 1", "job_id", "instance", function="max")


def _link() -> dict[str, str]:
    """Links to the job board with this job, data source, services and time range."""
    query = "var-job_id=${__value.raw}&${datasource:queryparam}&${instance:queryparam}&${__url_time_range}"
    return {"title": "Show the job", "url": f"/d/{JOB.uid}?{query}"}


def _merged() -> DataTransformerConfig:
    """Merges the tables of the queries to one line for each job."""
    return DataTransformerConfig(id_val="merge", options={})


def _named() -> DataTransformerConfig:
    """Orders and names the columns, which Grafana calls Value #A, Value #B and so on."""
    values = {f"Value #{chr(ord('A') + number)}": column.title for number, column in enumerate(_COLUMNS)}
    names = {"job_id": "Job", "instance": "Service"} | values
    order = {name: place for place, name in enumerate(names)}
    options = {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": names}
    return DataTransformerConfig(id_val="organize", options=options)
