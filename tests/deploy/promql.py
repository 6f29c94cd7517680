"""Which series and labels PromQL expressions ask for, and whether there are such."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import promql_parser

from service.metrics.table import OWN_LABELS, Metric, Type

__all__ = ["TARGET_LABELS", "Known", "Matcher", "Query", "Selector", "known_series", "mistakes", "read"]

TARGET_LABELS: Final = frozenset({"job", "instance"})
"""Labels that Prometheus gives to every series that it scrapes."""

Known: TypeAlias = Mapping[str, frozenset[str]]
"""Labels by the name of a series, without those of the target."""

_SUFFIXES: Final = {Type.HISTOGRAM: ("_bucket", "_sum", "_count"), Type.SUMMARY: ("", "_sum", "_count")}
# Functions that make a label, whose name is their second argument.
_LABEL_MAKERS: Final = ("label_replace", "label_join")


@dataclass(frozen=True)
class Matcher:
    """A condition on a label.

    Attributes:
        label: Its name.
        value: What it is compared with, be it a regular expression.
    """

    label: str
    value: str


@dataclass(frozen=True)
class Selector:
    """Series that an expression asks for; the name is empty if it names none."""

    name: str
    matchers: tuple[Matcher, ...] = ()


@dataclass(frozen=True)
class Query:
    """What an expression asks for.

    Attributes:
        selectors: In the order of the text.
        grouping: Labels that operators and aggregations group and match by.
        made: Labels that it makes itself.
    """

    selectors: tuple[Selector, ...]
    grouping: frozenset[str]
    made: frozenset[str]

    def labels(self, known: Known) -> frozenset[str]:
        """All labels that its result can have, those of the target left out."""
        return self.made.union(*(known.get(selector.name, ()) for selector in self.selectors))


def known_series(metrics: Iterable[Metric]) -> dict[str, frozenset[str]]:
    """The series of metrics: a histogram has those of its buckets, sum and count."""
    known = {}
    for metric in metrics:
        first, *others = _SUFFIXES.get(metric.type, ("",))
        labels = frozenset(metric.labels)
        # Only series with the first suffix have the label of their type.
        known[metric.name + first] = labels | ({OWN_LABELS[metric.type]} if metric.type in OWN_LABELS else set())
        known.update({metric.name + suffix: labels for suffix in others})
    return known


def read(expression: str) -> Query:
    """Reads an expression, without variables of Grafana's.

    Raises:
        ValueError: It is not PromQL.
    """
    nodes: list[promql_parser.Expr] = []
    promql_parser.walk(promql_parser.parse(expression), pre_visit=nodes.append)
    return Query(
        tuple(_selector(node) for node in nodes if isinstance(node, promql_parser.VectorSelector)),
        frozenset(label for node in nodes for label in _grouping(node)),
        frozenset(label for node in nodes for label in _made(node)),
    )


def mistakes(expression: str, known: Known) -> list[str]:
    """What is wrong with an expression, as sentences: series and labels that there are not."""
    try:
        query = read(expression)
    except ValueError as error:
        return [f"not PromQL: {error}"]
    found = [sentence for selector in query.selectors for sentence in _selector_mistakes(selector, known)]
    strange = query.grouping - query.labels(known) - TARGET_LABELS
    return found + [f"groups or matches by {label}, which none of its series has" for label in sorted(strange)]


def _selector_mistakes(selector: Selector, known: Known) -> Iterator[str]:
    if selector.name not in known:
        yield f"there is no series {selector.name}" if selector.name else "a selector names no series"
        return
    for matcher in selector.matchers:
        if matcher.label not in known[selector.name] | TARGET_LABELS:
            yield f"{selector.name} has no label {matcher.label}"


def _selector(node: promql_parser.VectorSelector) -> Selector:
    groups = (node.matchers.matchers, *node.matchers.or_matchers)
    return Selector(node.name or "", tuple(Matcher(each.name, each.value) for group in groups for each in group))


def _grouping(node: promql_parser.Expr) -> Iterator[str]:
    if isinstance(node, promql_parser.AggregateExpr) and node.modifier:
        yield from node.modifier.labels
    elif isinstance(node, promql_parser.BinaryExpr) and node.modifier:
        yield from node.modifier.matching.labels if node.modifier.matching else ()
        yield from node.modifier.group_labels or ()


def _made(node: promql_parser.Expr) -> Iterator[str]:
    if isinstance(node, promql_parser.Call) and node.func.name in _LABEL_MAKERS:
        label = node.args[1]
        if isinstance(label, promql_parser.StringLiteral):
            yield label.val
