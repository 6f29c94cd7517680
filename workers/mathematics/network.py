"""Description of a network: layers, activations and costs, and the validation of their combinations."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from workers.mathematics.activations import ACTIVATIONS
from workers.mathematics.costs import COSTS, valid_pair
from workers.mathematics.inner_terms import TERMS, InnerTerm


@dataclass(frozen=True)
class Network:
    """Multi-layer perceptron with its cost.

    Attributes:
        layers: Nodes of L(0)…L(E).
        activations: Names of the activations of L(1)…L(E); the last one is that of the output.
        cost: Name of the cost function of the output layer.
        bias: True if L(1)…L(E) have biases; the network of the paper has none.
        huber_delta: Value of |a − y| at which huber becomes linear, in units of the output.
        inner_terms: Further terms of the cost, on any layer from L(1) on.

    Raises:
        ValueError: The parts do not fit together; the message names them.
    """

    layers: tuple[int, ...]
    activations: tuple[str, ...]
    cost: str
    bias: bool = True
    huber_delta: float = 1.0
    inner_terms: tuple[InnerTerm, ...] = ()

    def __post_init__(self) -> None:
        self._check_layers()
        self._check_activations()
        self._check_cost()
        for number, term in enumerate(self.inner_terms):
            self._check_inner_term(f"inner term {number}", term)

    @property
    def output_layer(self) -> int:
        """Number E of the output layer; also the number of weight matrices."""
        return len(self.layers) - 1

    def _check_layers(self) -> None:
        if len(self.layers) < 2 or min(self.layers) < 1:
            raise ValueError(
                f"A network needs at least two layers with at least one node each, not {list(self.layers)}."
            )

    def _check_activations(self) -> None:
        if len(self.activations) != self.output_layer:
            raise ValueError(
                f"{len(self.layers)} layers need {self.output_layer} activations, one for each layer from L(1) on, "
                f"but {len(self.activations)} came."
            )
        for activation in self.activations:
            _check_name("activation", activation, ACTIVATIONS)
        for layer, activation in enumerate(self.activations[:-1], start=1):
            if ACTIVATIONS[activation].couples_nodes:
                raise ValueError(f"{activation} is for the output layer only, but L({layer}) has it.")
        if ACTIVATIONS[self.activations[-1]].couples_nodes and self.layers[-1] == 1:
            raise ValueError(
                f"{self.activations[-1]} over a single output node is always 1; "
                "take sigmoid, or one output node for each class."
            )

    def _check_cost(self) -> None:
        _check_name("cost", self.cost, COSTS)
        output = self.activations[-1]
        if not valid_pair(self.cost, output):
            valid = [name for name in ACTIVATIONS if valid_pair(self.cost, name)]
            raise ValueError(
                f"{self.cost} is not finite for every output of {output}; it goes with {', '.join(valid)}."
            )
        if not (math.isfinite(self.huber_delta) and self.huber_delta > 0):
            raise ValueError(f"huber_delta must be a number above 0, not {self.huber_delta}.")

    def _check_inner_term(self, which: str, term: InnerTerm) -> None:
        _check_name(which, term.term, TERMS)
        if not 1 <= term.layer <= self.output_layer:
            raise ValueError(f"{which} sits on L({term.layer}), but layers go from 1 to {self.output_layer} here.")
        if not (math.isfinite(term.weight) and term.weight > 0):
            raise ValueError(f"{which} needs a weight above 0, not {term.weight}.")
        self._check_term_nodes(which, term)
        self._check_term_activities(which, term)

    def _check_term_nodes(self, which: str, term: InnerTerm) -> None:
        in_layer = self.layers[term.layer]
        outside = [node for node in term.nodes if not 0 <= node < in_layer]
        if outside:
            raise ValueError(f"{which} names node {outside[0]}, but L({term.layer}) has nodes 0 to {in_layer - 1}.")
        if len(set(term.nodes)) != len(term.nodes):
            raise ValueError(f"{which} names a node twice; name each node once.")
        needed = TERMS[term.term].minimum_nodes
        if len(term.nodes or range(in_layer)) < needed:
            raise ValueError(f"{which}, {term.term}, needs at least {needed} nodes, but it sits on one.")

    def _check_term_activities(self, which: str, term: InnerTerm) -> None:
        activation, domain = self.activations[term.layer - 1], TERMS[term.term].domain
        if not ACTIVATIONS[activation].range.within(domain):
            valid = [name for name in ACTIVATIONS if ACTIVATIONS[name].range.within(domain)]
            raise ValueError(
                f"{which}, {term.term}, needs activities between {domain.low} and {domain.high}, "
                f"as {' and '.join(valid)} have them, but L({term.layer}) has {activation}."
            )
        if term.term == "sparsity" and not 0 < term.target < 1:
            raise ValueError(f"{which}, sparsity, needs a target above 0 and below 1, not {term.target}.")


def _check_name(what: str, name: str, known: Iterable[str]) -> None:
    names = list(known)
    if name not in names:
        raise ValueError(f"{what}: {name!r} is unknown; known are {', '.join(names)}.")
