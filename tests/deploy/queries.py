"""The queries of a board, as its JSON has them, and what stands in for its variables."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

__all__ = ["STAND_INS", "Kind", "Query", "all_panels", "all_queries", "label_values", "substitute", "variables_in"]

STAND_INS: Final[Mapping[str, str]] = {
    "instance": ".*",
    "job_id": "some-job",
    "__interval": "15s",
    "__rate_interval": "1m",
    "__range": "1h",
}
"""Something for each variable, with which a query is whole PromQL."""

# $name, ${name} and ${name:format}.
_VARIABLE: Final = re.compile(r"\$(?:(\w+)|\{(\w+)(?::\w+)?\})")
_LABEL_VALUES: Final = re.compile(r"label_values\((?P<series>.+),\s*(?P<label>\w+)\)")


class Kind(StrEnum):
    """What a query is for."""

    PANEL = "panel"
    VARIABLE = "variable"
    ANNOTATION = "annotation"


@dataclass(frozen=True)
class Query:
    """One query of a board.

    Attributes:
        board: The board's uid.
        panel: Title of the panel, name of the variable or name of the annotation.
        kind: Which of these.
        expression: PromQL with Grafana's variables; of a variable, the series whose labels are its values.
    """

    board: str
    panel: str
    kind: Kind
    expression: str


def all_queries(board: Mapping[str, Any]) -> list[Query]:
    """Every query that Grafana makes for a board: of panels, variables and annotations."""
    return [Query(board["uid"], *found) for found in _found(board)]


def all_panels(board: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The panels of a board without its rows, those of collapsed rows included."""
    for panel in board["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


def label_values(query: str) -> tuple[str, str]:
    """Series and label of a variable's query, ``label_values(SERIES, LABEL)``.

    Raises:
        ValueError: The query is of another form.
    """
    match = _LABEL_VALUES.fullmatch(query)
    if match is None:
        raise ValueError(f"a variable's query should be label_values(SERIES, LABEL), not {query}")
    return match["series"], match["label"]


def variables_in(text: str) -> set[str]:
    """Names of the variables that a text uses."""
    return {plain or braced for plain, braced in _VARIABLE.findall(text)}


def substitute(expression: str, values: Mapping[str, str] = STAND_INS) -> str:
    """A query with values in place of its variables.

    Raises:
        ValueError: It uses a variable that there is no value for.
    """
    missing = sorted(variables_in(expression) - values.keys())
    if missing:
        raise ValueError(f"no value was given for {', '.join(missing)} in {expression}")
    return _VARIABLE.sub(lambda match: values[match[1] or match[2]], expression)


def _found(board: Mapping[str, Any]) -> Iterator[tuple[str, Kind, str]]:
    """Name, kind and expression of each."""
    for panel in all_panels(board):
        yield from ((panel["title"], Kind.PANEL, target["expr"]) for target in panel["targets"])
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], Kind.VARIABLE, label_values(variable["query"])[0]
    for annotation in board["annotations"]["list"]:
        yield annotation["name"], Kind.ANNOTATION, annotation["expr"]
