"""What all boards have alike: tags, time range, variables and the links between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    Panel,
    VariableModel,
)

__all__ = ["JOB", "OVERVIEW", "SERVICE", "Name", "Row", "assemble"]

_TAG: Final = "nablad"


@dataclass(frozen=True)
class Name:
    """What a board is called.

    Attributes:
        uid: Its address, ``/d/UID``: links and bookmarks hold it, so it stays.
        title: Its headline.
        description: The question that it answers.
    """

    uid: str
    title: str
    description: str


OVERVIEW: Final = Name(
    "nablad-overview",
    "nablad: overview",
    "Is the service well, what runs, what waits, and what went wrong? Click a job to see it.",
)
JOB: Final = Name(
    "nablad-job",
    "nablad: job",
    "Does this job learn, how fast, where does the time of its steps go, and what happened to it?",
)
SERVICE: Final = Name(
    "nablad-service",
    "nablad: service",
    "How do the calls, the database, the checkpoints and the processes of the service fare?",
)


@dataclass(frozen=True)
class Row:
    """A headline and the panels below it; 24 columns make a line."""

    title: str
    panels: Sequence[Builder[Panel]]


def assemble(
    name: Name,
    variables: Sequence[Builder[VariableModel]],
    rows: Sequence[Row],
    annotations: Sequence[Builder[AnnotationQuery]] = (),
) -> Dashboard:
    """A board of these parts, with links to the other boards."""
    board = build.Dashboard(name.title).uid(name.uid).description(name.description).tags([_TAG])
    board.time("now-1h", "now").refresh("10s").timezone("browser").tooltip(DashboardCursorSync.CROSSHAIR)
    board.variables(list(variables)).annotations(list(annotations))
    board.links([_link(other) for other in (OVERVIEW, JOB, SERVICE) if other != name])
    for row in rows:
        board.with_row(build.Row(row.title))
        for panel in row.panels:
            board.with_panel(panel)
    return _numbered(board.build())


def _link(other: Name) -> build.DashboardLink:
    """To another board, with the time range and the variables that it shares."""
    link = build.DashboardLink(other.title).type(DashboardLinkType.LINK).url(f"/d/{other.uid}")
    return link.icon("dashboard").tooltip(other.description).keep_time(True).include_vars(True)


def _numbered(board: Dashboard) -> Dashboard:
    """Panels and rows get numbers: Grafana tells them apart by these, and the builder leaves them out."""
    for number, panel in enumerate(board.panels or (), start=1):
        panel.id_val = number
    return board
