"""The three kinds of panels that the boards have, in one style."""

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
from deploy.grafana.boards.variables import PROMETHEUS

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
"""From which value on which colour; the first one holds below its value, too."""

NEUTRAL: Final[Limits] = ((0, "blue"),)
"""For what is neither good nor bad. Without it, Grafana paints everything from 80 on red."""


def bad_from(bad: float, warning: float | None = None) -> Limits:
    """Of what should be small: good, from `warning` on doubtful, from `bad` on bad."""
    middle = [] if warning is None else [(warning, "orange")]
    return [(0, "green"), *middle, (bad, "red")]


def bad_until(good: float, warning: float | None = None) -> Limits:
    """Of what should be large: bad, from `warning` on doubtful, from `good` on good."""
    middle = [] if warning is None else [(warning, "orange")]
    return [(0, "red"), *middle, (good, "green")]


@dataclass(frozen=True)
class Series:
    """A query, and how its series are called: ``{{label}}`` stands for the value of a label."""

    expression: str
    legend: str


def percentiles(buckets: str) -> Iterator[Series]:
    """Of a histogram: what is usual, and what is not."""
    for q, name in ((0.5, "median"), (0.9, "p90"), (0.99, "p99")):
        yield Series(quantile(q, buckets), name)


def graph(
    title: str, description: str, unit: str, *series: Series, span: int = 12, limits: Limits | None = None
) -> timeseries.Panel:
    """Lines over time, from 0 up; limits are dashed lines."""
    panel = timeseries.Panel().title(title).description(description).unit(unit).span(span).height(8)
    panel.datasource(PROMETHEUS).targets([_query(each, ref).range() for ref, each in _lettered(series)])
    panel.legend(_legend()).tooltip(_tooltip()).axis_soft_min(0)
    panel.line_width(1).fill_opacity(8).show_points(common.VisibilityMode.NEVER)
    if limits:
        dashed = build.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        panel.thresholds(_thresholds(limits)).thresholds_style(dashed)
    return panel


def stacked(panel: timeseries.Panel) -> timeseries.Panel:
    """The same, each series on top of the ones before."""
    return panel.stacking(build.StackingConfig().mode(common.StackingMode.NORMAL)).fill_opacity(60)


def normalised(panel: timeseries.Panel) -> timeseries.Panel:
    """The same for shares of a whole: stacked, from 0 to 1."""
    return stacked(panel).min(0).max(1)


def stat(
    title: str, description: str, unit: str, *series: Series, span: int = 3, limits: Limits = NEUTRAL
) -> stat_panel.Panel:
    """The present value in large figures, coloured by the limits."""
    panel = stat_panel.Panel().title(title).description(description).unit(unit).span(span).height(4)
    panel.datasource(PROMETHEUS).targets([_query(each, ref).instant() for ref, each in _lettered(series)])
    panel.thresholds(_thresholds(limits)).no_value("–")
    panel.color_mode(common.BigValueColorMode.VALUE).graph_mode(common.BigValueGraphMode.NONE)
    return panel.reduce_options(build.ReduceDataOptions().calcs(["lastNotNull"]))


def mapped(panel: stat_panel.Panel, words: Mapping[int, str]) -> stat_panel.Panel:
    """The same with words for values."""
    results = {str(value): ValueMappingResult(text=word) for value, word in words.items()}
    return panel.mappings([ValueMap(options=results)])


def named(panel: stat_panel.Panel) -> stat_panel.Panel:
    """The same with the name of the series in place of its value."""
    return panel.text_mode(common.BigValueTextMode.NAME)


def table(title: str, description: str, unit: str, *series: Series, height: int = 8) -> table_panel.Panel:
    """Present values, one column for each query; transformations bring the columns together."""
    panel = table_panel.Panel().title(title).description(description).unit(unit).span(24).height(height)
    queries = [_query(each, ref).instant().format(PromQueryFormat.TABLE) for ref, each in _lettered(series)]
    panel.show_header(True).frame_index(0).align(common.FieldTextAlignment.AUTO)
    return panel.datasource(PROMETHEUS).targets([*queries]).no_value("–")


def _lettered(series: Sequence[Series]) -> list[tuple[str, Series]]:
    """Queries are called A, B, C …: a table's columns are named after them."""
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
