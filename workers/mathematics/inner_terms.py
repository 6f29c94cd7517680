"""Costs on inner layers, and on any set of their nodes (Supposition 1 of the paper).

A term adds its own sum to Λ, and its ∂λ/∂a to [W(N)ᵀ ⊙ δ(N+1)] at its layer before the product with D(N).

Sparsity is the only term that couples samples. m_j is the mean activity of node j over the samples of one call, which
is one micro-batch. The micro-batch adds (its number of samples) · weight · Σ_j KL(target ‖ m_j) to the cost sum. After
the division by the samples of the mini-batch this is the mean over its micro-batches, each weighted by its samples.
The cost depends on the number of micro-batches, which is part of the spec, but not on the number of workers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from workers.mathematics.arrays import OPEN_UNIT, REAL, Array, Interval, Scratch, clip_inside, total, widened


@dataclass(frozen=True)
class InnerTerm:
    """Term of the cost on a set of nodes of one layer.

    Attributes:
        layer: N of the layer L(N), from 1 to E.
        term: squared_activity, absolute_activity, sparsity or balance.
        weight: Factor of this term in the cost.
        nodes: Numbers of its nodes, from 0; empty for all nodes of the layer.
        target: Mean activity at which the sparsity cost of a node is 0.
    """

    layer: int
    term: str
    weight: float
    nodes: tuple[int, ...] = ()
    target: float = 0.05


Wide: TypeAlias = npt.NDArray[np.float64]
# (term, a of the nodes, scratch of as many nodes, wide): writes ∂λ/∂a to scratch.d, returns the cost sum.
Formula: TypeAlias = Callable[[InnerTerm, Array, Scratch, Wide], float]


@dataclass(frozen=True)
class TermForm:
    """Form of inner terms.

    Attributes:
        formula: Writes ∂λ/∂a of a term, and returns its cost sum.
        domain: Interval of the activities.
        minimum_nodes: Smallest number of nodes; with fewer the term would always be 0.
    """

    formula: Formula
    domain: Interval = REAL
    minimum_nodes: int = 1


def _squared_activity(term: InnerTerm, a: Array, scratch: Scratch, wide: Wide) -> float:
    """λ = w Σ a²; ∂λ/∂a = 2 w a."""
    np.multiply(a, a, out=scratch.d)
    cost = term.weight * total(scratch.d, wide)
    np.multiply(a, 2 * term.weight, out=scratch.d)
    return cost


def _absolute_activity(term: InnerTerm, a: Array, scratch: Scratch, wide: Wide) -> float:
    """λ = w Σ |a|; ∂λ/∂a = w sign(a), 0 where a = 0."""
    np.abs(a, out=scratch.d)
    cost = term.weight * total(scratch.d, wide)
    np.sign(a, out=scratch.d)
    np.multiply(scratch.d, term.weight, out=scratch.d)
    return cost


def _sparsity(term: InnerTerm, a: Array, scratch: Scratch, wide: Wide) -> float:
    """Σλ = n w Σ_j KL(p ‖ m_j) over n samples, p the target; ∂/∂a = w [(1 − p)/(1 − m_j) − p/m_j].

    KL(p ‖ m) = p log(p/m) + (1 − p) log((1 − p)/(1 − m)).
    """
    p, samples = term.target, int(a.shape[1])
    if samples == 0:  # there is no mean activity
        return 0.0
    # No buffers, because there is only one number per node.
    mean = widened(a, wide).mean(axis=1, keepdims=True)
    clip_inside(mean, OPEN_UNIT, a.dtype)
    divergence = p * (math.log(p) - np.log(mean)) + (1 - p) * (math.log1p(-p) - np.log1p(-mean))
    scratch.d[...] = term.weight * ((1 - p) / (1 - mean) - p / mean)
    return samples * term.weight * float(divergence.sum())


def _balance(term: InnerTerm, a: Array, scratch: Scratch, wide: Wide) -> float:
    """λ = w/k Σ (a − ā)², ā the mean over the k nodes in each sample; ∂λ/∂a = 2 w/k (a − ā), for Σ (a − ā) = 0."""
    share = term.weight / len(a)
    np.add.reduce(a, axis=0, keepdims=True, out=scratch.row)
    np.divide(scratch.row, len(a), out=scratch.row)
    np.copyto(scratch.d, scratch.row)
    np.subtract(a, scratch.d, out=scratch.d)
    np.multiply(scratch.d, scratch.d, out=scratch.d)
    cost = share * total(scratch.d, wide)
    np.copyto(scratch.d, scratch.row)
    np.subtract(a, scratch.d, out=scratch.d)
    np.multiply(scratch.d, 2 * share, out=scratch.d)
    return cost


TERMS = MappingProxyType(
    {
        "squared_activity": TermForm(_squared_activity),
        "absolute_activity": TermForm(_absolute_activity),
        "sparsity": TermForm(_sparsity, domain=OPEN_UNIT),
        "balance": TermForm(_balance, minimum_nodes=2),
    }
)
"""Forms of inner terms by their names in a spec."""


class BoundTerm:
    """Inner term with the indices of its nodes in its layer."""

    def __init__(self, term: InnerTerm, layer_nodes: int) -> None:
        self.layer = term.layer
        self._term = term
        self._formula = TERMS[term.term].formula
        self._nodes = np.array(term.nodes or range(layer_nodes), dtype=np.intp)
        self._all = not term.nodes

    def cost(self, a: Array, scratch: Scratch, wide: Wide) -> float:
        """Returns the cost sum of this term.

        Args:
            a: Activities of the layer, (nodes, samples).
            scratch: Scratch of the layer.
            wide: Buffer in float64 for at least ``a.size`` numbers.
        """
        return self._run(a, scratch, wide)

    def add_derivative(self, delta: Array, a: Array, scratch: Scratch, wide: Wide) -> float:
        """Adds ∂λ/∂a of this term to delta, (nodes, samples) of the layer; returns the cost sum, as `cost` does."""
        cost = self._run(a, scratch, wide)
        d, rows = scratch.d[: len(self._nodes)], scratch.spare[: len(self._nodes)]
        if self._all:
            np.add(delta, d, out=delta)
            return cost
        # The nodes are in range, so "clip" changes nothing; with "raise" numpy would copy the output.
        np.take(delta, self._nodes, axis=0, out=rows, mode="clip")
        np.add(rows, d, out=rows)
        delta[self._nodes] = rows
        return cost

    def _run(self, a: Array, scratch: Scratch, wide: Wide) -> float:
        k = len(self._nodes)
        own = Scratch(scratch.d[:k], scratch.spare[:k], scratch.row)
        if not self._all:
            np.take(a, self._nodes, axis=0, out=own.spare, mode="clip")
        return self._formula(self._term, a if self._all else own.spare, own, wide)
