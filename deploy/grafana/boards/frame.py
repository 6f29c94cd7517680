"""Frame of all boards: tags, time range, variables, and links between boards."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders.dashboard import DatasourceVariable, QueryVariable
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    Panel,
    VariableModel,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

__all__ = ["JOB", "OVERVIEW", "PROMETHEUS", "SERVICE", "Name", "Row", "assemble", "data_source", "instance", "job_id"]

_TAG: Final = "nablad"

PROMETHEUS: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
"""Chosen data source of all queries."""


@dataclass(frozen=True)
class Name:
    """Name of a board.

    Attributes:
        uid: Address, ``/d/UID``; fixed, because links and bookmarks contain it.
        title: Headline.
        description: Questions that the board answers.
    """

    uid: str
    title: str
    description: str


OVERVIEW: Final = Name(
    "nablad-overview",
    "nablad: overview",
    "Is the service healthy? Which jobs run, wait or fail? Click a job to open its board.",
)
JOB: Final = Name(
    "nablad-job",
    "nablad: job",
    "Does this job learn, how fast, and where do its steps spend their time?",
)
SERVICE: Final = Name(
    "nablad-service",
    "nablad: service",
    "Calls, database, checkpoints and processes of the service.",
)


@dataclass(frozen=True)
class Row:
    """Headline with panels below it; a line has 24 columns."""

    title: str
    panels: Sequence[Builder[Panel]]


def data_source() -> DatasourceVariable:
    """Returns the choice of a Prometheus."""
    return DatasourceVariable("datasource").label("Data source").type("prometheus")


def instance() -> QueryVariable:
    """Returns the choice of services: one, several or all."""
    everything = VariableOption(selected=True, text="All", value="$__all")
    variable = _query("instance", "label_values(nablad_build_info, instance)").label("Service")
    return variable.multi(True).include_all(True).all_value(".*").current(everything).sort(VariableSort.NATURAL_ASC)


def job_id() -> QueryVariable:
    """Returns the choice of a job among those in the time range."""
    query = 'label_values(nablad_job_epochs{instance=~"$instance"}, job_id)'
    return _query("job_id", query).label("Job").sort(VariableSort.NATURAL_ASC)


def assemble(
    name: Name,
    variables: Sequence[Builder[VariableModel]],
    rows: Sequence[Row],
    annotations: Sequence[Builder[AnnotationQuery]] = (),
) -> Dashboard:
    """Builds a board from its parts, with links to the other boards."""
    board = build.Dashboard(name.title).uid(name.uid).description(name.description).tags([_TAG])
    board.time("now-1h", "now").refresh("10s").timezone("browser").tooltip(DashboardCursorSync.CROSSHAIR)
    board.variables(list(variables)).annotations(list(annotations))
    board.links([_link(other) for other in (OVERVIEW, JOB, SERVICE) if other != name])
    for row in rows:
        board.with_row(build.Row(row.title))
        for panel in row.panels:
            board.with_panel(panel)
    return _numbered(board.build())


def _query(name: str, query: str) -> QueryVariable:
    """Returns a variable that is refreshed with the time range, so that jobs of another day can be chosen."""
    variable = QueryVariable(name).datasource(PROMETHEUS).query(query)
    return variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)


def _link(other: Name) -> build.DashboardLink:
    """Links to another board; keeps the time range and shared variables."""
    link = build.DashboardLink(other.title).type(DashboardLinkType.LINK).url(f"/d/{other.uid}")
    return link.icon("dashboard").tooltip(other.description).keep_time(True).include_vars(True)


def _numbered(board: Dashboard) -> Dashboard:
    """Numbers panels and rows, because Grafana needs ids and the builder sets none."""
    for number, panel in enumerate(board.panels or (), start=1):
        panel.id_val = number
    return board
