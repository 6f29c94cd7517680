"""The queries of Grafana's boards: all that they ask for is in the table of metrics."""

import json
import re
from typing import Any

import promql_parser
import pytest

from deploy.grafana.rendering import FOLDER
from service.metrics.table import METRICS, Type
from tests.deploy.promql import known_series, mistakes, read
from tests.deploy.queries import STAND_INS, Kind, Query, all_panels, all_queries, label_values, substitute

BOARDS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}
QUERIES = [query for board in BOARDS.values() for query in all_queries(board)]
SERIES = known_series(METRICS)
COUNTERS = {series for metric in METRICS for series in known_series([metric]) if metric.type is Type.COUNTER} | {
    series for series in SERIES if series.endswith(("_bucket", "_sum", "_count"))
}

every_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
every_query = pytest.mark.parametrize("query", QUERIES, ids=lambda query: f"{query.board}: {query.panel}")


@every_query
def test_queries_ask_for_what_there_is(query: Query) -> None:
    """All series and labels are in the table of metrics."""
    assert not mistakes(substitute(query.expression), SERIES)


@pytest.mark.parametrize(
    "expression",
    [
        'nablad_job_epoch{job="$job_id"} / nablad_job_epochz{instance=~"$instance"}',
        'sum by (methods) (nablad_rpcs_total{instance=~"$instance"})',
        'nablad_job_step_seconds{instance=~"$instance"}',
    ],
)
def test_a_wrong_name_is_found(expression: str) -> None:
    """The test above can fail: a series, a label of a grouping, and a histogram without a suffix."""
    assert mistakes(substitute(expression), SERIES)


@every_query
def test_queries_ask_for_what_was_chosen(query: Query) -> None:
    """Every series is limited to the chosen services, and on the job board to the chosen job."""
    if query.kind is Kind.VARIABLE and query.panel == "instance":
        return
    wanted = {("instance", "$instance")}
    if query.board == "nablad-job" and query.kind is not Kind.VARIABLE:
        wanted.add(("job_id", "$job_id"))
    readable = substitute(query.expression, STAND_INS | {"instance": "$instance", "job_id": "$job_id"})
    for selector in read(readable).selectors:
        assert {(matcher.label, matcher.value) for matcher in selector.matchers} >= wanted, selector


@every_query
def test_no_label_is_called_job(query: Query) -> None:
    """Prometheus gives that one a meaning of its own."""
    found = read(substitute(query.expression))
    assert "job" not in found.grouping
    assert all(matcher.label != "job" for selector in found.selectors for matcher in selector.matchers)


@every_query
def test_only_counters_have_a_rate(query: Query) -> None:
    """Of a gauge, a rate or an increase means nothing."""
    assert _rated(substitute(query.expression)) <= COUNTERS


@every_query
def test_only_gauges_have_changes(query: Query) -> None:
    """Counters start again at 0, which is a change, too."""
    assert not _rated(substitute(query.expression), ("changes", "delta", "deriv")) & COUNTERS


def _rated(
    expression: str, functions: frozenset[str] | set[str] = frozenset({"rate", "irate", "increase"})
) -> set[str]:
    """Series within these functions."""
    calls = [node for node in _nodes(expression) if isinstance(node, promql_parser.Call)]
    within = [call for call in calls if call.func.name in functions]
    return {selector.name for call in within for selector in read(call.prettify()).selectors}


def _nodes(expression: str) -> list[Any]:
    nodes: list[Any] = []
    promql_parser.walk(promql_parser.parse(expression), pre_visit=nodes.append)
    return nodes


@every_query
def test_rates_fit_the_resolution(query: Query) -> None:
    """Windows are Grafana's: a fixed one would be too short for a wide time range, or too long for a narrow one."""
    assert set(re.findall(r"\[([^\]]*)\]", query.expression)) <= {"$__rate_interval", "$__range"}


@every_board
def test_legends_name_labels_of_the_result(board: dict[str, Any]) -> None:
    """What stands in braces is a label that the query's result has."""
    for panel in all_panels(board):
        for target in panel["targets"]:
            names = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert names <= _labels(substitute(target["expr"])), panel["title"]


def _labels(expression: str) -> frozenset[str]:
    """Of an expression's result: those of its groups, or all of its series."""
    query = read(expression)
    aggregated = any(isinstance(node, promql_parser.AggregateExpr) for node in _nodes(expression))
    return query.grouping if aggregated else query.labels(SERIES) | {"instance"}


@every_board
def test_variables_have_the_values_of_a_label(board: dict[str, Any]) -> None:
    """Each asks for a label that its series has."""
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            series, label = label_values(variable["query"])
            (selector,) = read(substitute(series)).selectors
            assert label == variable["name"]
            assert label in SERIES[selector.name] | {"instance"}


def test_all_metrics_are_shown() -> None:
    """Nothing is measured that no board shows."""
    shown = {selector.name for query in QUERIES for selector in read(substitute(query.expression)).selectors}
    unseen = {metric.name for metric in METRICS if not shown & known_series([metric]).keys()}
    assert unseen == {"nablad_process_virtual_memory_bytes", "nablad_cluster_process_virtual_memory_bytes",
                      "nablad_cluster_process_start_time_seconds"}  # fmt: skip


def test_a_query_of_an_unknown_variable_is_refused() -> None:
    """With its name, and the query that has it."""
    with pytest.raises(ValueError, match=r"no value was given for nodes in up\{node=~\"\$nodes\"\}"):
        substitute('up{node=~"$nodes"}')


def test_variables_are_put_in() -> None:
    """In all forms that Grafana knows."""
    values = STAND_INS | {"job_id": "j-1"}
    assert substitute('a{b="$job_id",c="${job_id}",d=~"${job_id:regex}"}[$__range]', values) == (
        'a{b="j-1",c="j-1",d=~"j-1"}[1h]'
    )
