"""Panels in one style: graph, stat and table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from grafana_foundation_sdk.builders import common as build
from grafana_foundation_sdk.builders import stat as stat_panel
from grafana_foundation_sdk.builders import table as table_panel
from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import Threshold, ThresholdsMode, ValueMap, ValueMappingResult
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from deploy.grafana.boards.expressions import quantile
from deploy.grafana.boards.frame import PROMETHEUS

__all__ = [
    "NEUTRAL",
    "Limits",
    "Series",
    "bad_from",
    "bad_until",
    "graph",
    "mapped",
    "named",
    "normalised",
    "percentiles",
    "stacked",
    "stat",
    "table",
]

Limits: TypeAlias = Sequence[tuple[float, str]]
"""Lower bounds with colours; the first colour also holds below its bound."""

NEUTRAL: Final[Limits] = ((0, "blue"),)
"""Single colour, because Grafana's default is red from 80 on."""


def bad_from(bad: float, warning: float | None = None) -> Limits:
    """Limits of a value that should be small: green, then orange from `warning` and red from `bad`."""
    middle = [] if warning is None else [(warning, "orange")]
    return [(0, "green"), *middle, (bad, "red")]


def bad_until(good: float, warning: float | None = None) -> Limits:
    """Limits of a value that should be large: red, then orange from `warning` and green from `good`."""
    middle = [] if warning is None else [(warning, "orange")]
    return [(0, "red"), *middle, (good, "green")]


@dataclass(frozen=True)
class Series:
    """Query with the legend of its series: ``{{label}}`` stands for the value of a label."""

    expression: str
    legend: str


def percentiles(buckets: str) -> Iterator[Series]:
    """Yields median, p90 and p99 of a histogram."""
    for q, name in ((0.5, "median"), (0.9, "p90"), (0.99, "p99")):
        yield Series(quantile(q, buckets), name)


def graph(
    title: str, description: str, unit: str, *series: Series, span: int = 12, limits: Limits | None = None
) -> timeseries.Panel:
    """Graph over time, from 0 up; limits are dashed lines."""
    panel = timeseries.Panel().title(title).description(description).unit(unit).span(span).height(8)
    panel.datasource(PROMETHEUS).targets([_query(each, ref).range() for ref, each in _lettered(series)])
    panel.legend(_legend()).tooltip(_tooltip()).axis_soft_min(0)
    panel.line_width(1).fill_opacity(8).show_points(common.VisibilityMode.NEVER)
    if limits:
        dashed = build.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        panel.thresholds(_thresholds(limits)).thresholds_style(dashed)
    return panel


def stacked(panel: timeseries.Panel) -> timeseries.Panel:
    """Stacks the series of a panel."""
    return panel.stacking(build.StackingConfig().mode(common.StackingMode.NORMAL)).fill_opacity(60)


def normalised(panel: timeseries.Panel) -> timeseries.Panel:
    """Stacks shares of a whole, from 0 to 1."""
    return stacked(panel).min(0).max(1)


def stat(
    title: str, description: str, unit: str, *series: Series, span: int = 3, limits: Limits = NEUTRAL
) -> stat_panel.Panel:
    """Shows the present value in large digits, coloured by the limits."""
    panel = stat_panel.Panel().title(title).description(description).unit(unit).span(span).height(4)
    panel.datasource(PROMETHEUS).targets([_query(each, ref).instant() for ref, each in _lettered(series)])
    panel.thresholds(_thresholds(limits)).no_value("–")
    panel.color_mode(common.BigValueColorMode.VALUE).graph_mode(common.BigValueGraphMode.NONE)
    return panel.reduce_options(build.ReduceDataOptions().calcs(["lastNotNull"]))


def mapped(panel: stat_panel.Panel, words: Mapping[int, str]) -> stat_panel.Panel:
    """Shows words instead of values."""
    results = {str(value): ValueMappingResult(text=word) for value, word in words.items()}
    return panel.mappings([ValueMap(options=results)])


def named(panel: stat_panel.Panel) -> stat_panel.Panel:
    """Shows the name of the series instead of its value."""
    return panel.text_mode(common.BigValueTextMode.NAME)


def table(title: str, description: str, unit: str, *series: Series, height: int = 8) -> table_panel.Panel:
    """Table of present values, one column for each query; transformations merge the columns."""
    panel = table_panel.Panel().title(title).description(description).unit(unit).span(24).height(height)
    queries = [_query(each, ref).instant().format(PromQueryFormat.TABLE) for ref, each in _lettered(series)]
    panel.show_header(True).frame_index(0).align(common.FieldTextAlignment.AUTO)
    return panel.datasource(PROMETHEUS).targets([*queries]).no_value("–")


def _lettered(series: Sequence[Series]) -> list[tuple[str, Series]]:
    """Names queries A, B, C …, which become the names of a table's columns."""
    return [(chr(ord("A") + number), each) for number, each in enumerate(series)]


def _query(series: Series, ref: str) -> Dataquery:
    return Dataquery().ref_id(ref).datasource(PROMETHEUS).expr(series.expression).legend_format(series.legend)


def _thresholds(limits: Limits) -> ThresholdsConfig:
    steps = [Threshold(value=value, color=colour) for value, colour in limits]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _legend() -> build.VizLegendOptions:
    legend = build.VizLegendOptions().display_mode(common.LegendDisplayMode.TABLE).show_legend(True)
    return legend.placement(common.LegendPlacement.BOTTOM).calcs(["lastNotNull", "max"])


def _tooltip() -> build.VizTooltipOptions:
    return build.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
