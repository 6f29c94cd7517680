"""Rules between the inner terms of the cost and the network."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from nablad.jobspec.names import name_of
from nablad.jobspec.outputs import UNIT_INTERVAL
from nablad.jobspec.violations import Rule, RuleViolation
from nablad.v1 import job_spec_pb2 as v1
from nablad.v1.job_spec_pb2 import Activation, InnerTerm, JobSpec

__all__ = ["INNER_RULES"]

_SHOWN_NODES = 5
_PORTION = 10_000


class _Place(NamedTuple):
    """An inner term and its layer.

    Attributes:
        path: Field path of the term.
        term: The term.
        width: Number of nodes of its layer; 0 while it is not known.
        activation: Activation of its layer; unspecified while it is not known.
    """

    path: str
    term: InnerTerm
    width: int
    activation: Activation.ValueType


def layer_exists(spec: JobSpec) -> Iterator[RuleViolation]:
    """The layer of a term is one of L(1)…L(E)."""
    last_layer = len(spec.model.layers) - 1
    for index, term in enumerate(spec.cost.inner):
        if term.layer > last_layer > 0:
            message = f"got {term.layer}; allowed: 1 to {last_layer}, the last layer of this network"
            yield RuleViolation(f"cost.inner[{index}].layer", message, ("model.layers",))


def nodes_exist(spec: JobSpec) -> Iterator[RuleViolation]:
    """The nodes of a term exist in its layer."""
    for path, term, width, _ in _places(spec):
        if any(max(portion) >= width > 0 for portion in _portions(term.nodes)):
            beyond = [node for node in term.nodes if node >= width]
            message = f"got {_some(beyond)}; allowed: 0 to {width - 1}, the nodes of layer L({term.layer})"
            yield RuleViolation(f"{path}.nodes", message, ("model.layers", f"{path}.layer"))


def nodes_are_a_set(spec: JobSpec) -> Iterator[RuleViolation]:
    """No node is given twice in one term."""
    for index, term in enumerate(spec.cost.inner):
        # For hundreds of thousands of nodes, a set is several times as fast as a count.
        if _distinct(term.nodes) < len(term.nodes):
            twice = list(_repeated(term.nodes))
            yield RuleViolation(f"cost.inner[{index}].nodes", f"got {_some(twice)} more than once; give each node once")


def balance_has_a_cluster(spec: JobSpec) -> Iterator[RuleViolation]:
    """A balance term has at least two nodes, because the variance of a single activity is 0."""
    for path, term, width, _ in _places(spec):
        got = len(term.nodes) or width
        if term.term == v1.TERM_BALANCE and got == 1:
            message = "got 1 node; balance compares nodes with each other: at least 2 are needed"
            yield RuleViolation(f"{path}.nodes", message, ("model.layers", f"{path}.layer", f"{path}.term"))


def sparsity_has_a_mean_to_compare(spec: JobSpec) -> Iterator[RuleViolation]:
    """A sparsity term needs activities in (0, 1), because its divergence reads them as probabilities."""
    for path, term, _, activation in _places(spec):
        if term.term == v1.TERM_SPARSITY and activation not in UNIT_INTERVAL | {v1.ACTIVATION_UNSPECIFIED}:
            message = (
                f"got sparsity, which needs activities in (0, 1), but the activation of layer L({term.layer}) is "
                f"{name_of(Activation.DESCRIPTOR, activation)}; use sigmoid there, or another term"
            )
            output = ("model.output_activation", "cost.function") if term.layer == len(spec.model.layers) - 1 else ()
            reads = ("model.layers", "model.activation", *output, f"{path}.layer")
            yield RuleViolation(f"{path}.term", message, reads)


def _places(spec: JobSpec) -> Iterator[_Place]:
    """Yields the terms whose layer exists, each with its layer."""
    layers, activations = spec.model.layers, [*spec.model.activation, spec.model.output_activation]
    if len(activations) != len(layers) - 1:  # another rule reports that they do not fit the layers
        activations = [v1.ACTIVATION_UNSPECIFIED] * len(layers)
    for index, term in enumerate(spec.cost.inner):
        if 0 < term.layer < len(layers):
            yield _Place(f"cost.inner[{index}]", term, layers[term.layer], activations[term.layer - 1])


def _portions(nodes: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yields the nodes in short slices, because other threads wait for the interpreter during one built-in call."""
    return (nodes[start : start + _PORTION] for start in range(0, len(nodes), _PORTION))


def _distinct(nodes: Sequence[int]) -> int:
    """Returns the number of different nodes."""
    seen: set[int] = set()
    for portion in _portions(nodes):
        seen.update(portion)
    return len(seen)


def _repeated(nodes: Iterable[int]) -> Iterator[int]:
    """Yields each node that is given more than once, once."""
    times: dict[int, int] = {}
    for node in nodes:
        times[node] = times.get(node, 0) + 1
    yield from (node for node, count in times.items() if count > 1)


def _some(nodes: list[int]) -> str:
    more = f" and {len(nodes) - _SHOWN_NODES} more" if len(nodes) > _SHOWN_NODES else ""
    return ", ".join(map(str, nodes[:_SHOWN_NODES])) + more


INNER_RULES: tuple[Rule, ...] = (
    layer_exists,
    nodes_exist,
    nodes_are_a_set,
    balance_has_a_cluster,
    sparsity_has_a_mean_to_compare,
)
