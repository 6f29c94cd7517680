"""Costs λ(a, y) of one output node, each beside its derivative; and the exact forms for certain pairs.

Λ is the sum of λ over output nodes and samples (equation 83, without its 1/n). A cost has a domain, on which λ and
∂λ/∂a are finite. A pair of cost and output activation is valid if the activation's range lies within the domain. The
generic route then takes λ and outδ = ∂λ/∂a (equation 84) through a. Before that, an a which was rounded to the end of
an open domain is moved inside. Three pairs have a form through z in which the division by ∂φ/∂z has cancelled (equation
27): nothing is clipped there and nothing can overflow.

All arrays have the shape (nodes, samples); y is one-hot or holds values.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from workers.mathematics.activations import ACTIVATIONS
from workers.mathematics.arrays import OPEN_UNIT, POSITIVE, REAL, ZERO, Array, Interval, Scratch

Formula: TypeAlias = Callable[[Array, Array, Array, Scratch], None]  # (a or z, y, out, scratch): writes out


@dataclass(frozen=True)
class Cost:
    """A cost function.

    Attributes:
        domain: Interval of a on which λ and ∂λ/∂a are finite.
        value: Writes λ(a, y).
        derivative: Writes outδ = ∂λ/∂a.
    """

    domain: Interval
    value: Formula
    derivative: Formula


@dataclass(frozen=True)
class CancelledForm:
    """A pair of cost and output activation for which δ(E) is known without a division.

    Attributes:
        value: Writes λ, through z.
        delta: Writes δ(E) = ∂λ/∂z, through a.
    """

    value: Formula
    delta: Formula


def _log_loss(a: Array, y: Array, out: Array, scratch: Scratch) -> None:
    """λ = −[y log a + (1 − y) log(1 − a)] (equation 18, with its signs corrected)."""
    np.negative(a, out=scratch.spare)
    np.log1p(scratch.spare, out=scratch.spare)
    np.subtract(1, y, out=out)
    np.multiply(out, scratch.spare, out=out)
    np.log(a, out=scratch.spare)
    np.multiply(scratch.spare, y, out=scratch.spare)
    np.add(out, scratch.spare, out=out)
    np.negative(out, out=out)


def _log_loss_derivative(a: Array, y: Array, out: Array, scratch: Scratch) -> None:
    """∂λ/∂a = (a − y) / (a (1 − a)) (equation 20)."""
    np.subtract(1, a, out=scratch.spare)
    np.multiply(scratch.spare, a, out=scratch.spare)
    np.subtract(a, y, out=out)
    np.divide(out, scratch.spare, out=out)


def _log_loss_of_sigmoid(z: Array, y: Array, out: Array, scratch: Scratch) -> None:
    """λ = max(z, 0) − y z + log(1 + exp(−|z|)), which is the log loss of a = sigmoid(z)."""
    np.abs(z, out=scratch.spare)
    np.negative(scratch.spare, out=scratch.spare)
    np.exp(scratch.spare, out=scratch.spare)
    np.log1p(scratch.spare, out=scratch.spare)
    np.multiply(y, z, out=out)
    np.subtract(scratch.spare, out, out=scratch.spare)
    np.maximum(z, ZERO[z.dtype], out=out)
    np.add(out, scratch.spare, out=out)


def _cross_entropy(a: Array, y: Array, out: Array, _: Scratch) -> None:
    """λ = −y log a."""
    np.log(a, out=out)
    np.multiply(out, y, out=out)
    np.negative(out, out=out)


def _cross_entropy_derivative(a: Array, y: Array, out: Array, _: Scratch) -> None:
    """∂λ/∂a = −y / a."""
    np.divide(y, a, out=out)
    np.negative(out, out=out)


def _cross_entropy_of_softmax(z: Array, y: Array, out: Array, scratch: Scratch) -> None:
    """λ = y (log Σ exp(z − m) − (z − m)) with m = max z over the nodes: the cross-entropy of a = softmax(z)."""
    np.maximum.reduce(z, axis=0, keepdims=True, out=scratch.row)
    np.copyto(out, scratch.row)
    np.subtract(z, out, out=out)
    np.exp(out, out=scratch.spare)
    np.add.reduce(scratch.spare, axis=0, keepdims=True, out=scratch.row)
    np.log(scratch.row, out=scratch.row)
    np.copyto(scratch.spare, scratch.row)
    np.subtract(scratch.spare, out, out=out)
    np.multiply(out, y, out=out)


def _cross_entropy_of_softmax_delta(a: Array, y: Array, out: Array, scratch: Scratch) -> None:
    """δ = a Σ y − y, the sum over the nodes; a − y where the y of a sample sum to 1."""
    np.add.reduce(y, axis=0, keepdims=True, out=scratch.row)
    np.copyto(out, scratch.row)
    np.multiply(a, out, out=out)
    np.subtract(out, y, out=out)


def _squared_error(a: Array, y: Array, out: Array, _: Scratch) -> None:
    """λ = ½ (a − y)²."""
    np.subtract(a, y, out=out)
    np.multiply(out, out, out=out)
    np.multiply(out, 0.5, out=out)


def _difference(a: Array, y: Array, out: Array, _: Scratch) -> None:
    """∂λ/∂a = a − y: the derivative of the squared error, and δ(E) of the cancelled forms (equation 27)."""
    np.subtract(a, y, out=out)


def _absolute_error(a: Array, y: Array, out: Array, _: Scratch) -> None:
    """λ = |a − y|."""
    np.subtract(a, y, out=out)
    np.abs(out, out=out)


def _absolute_error_derivative(a: Array, y: Array, out: Array, _: Scratch) -> None:
    """∂λ/∂a = sign(a − y), 0 where they are equal."""
    np.subtract(a, y, out=out)
    np.sign(out, out=out)


def _poisson(a: Array, y: Array, out: Array, _: Scratch) -> None:
    """λ = a − y log a."""
    np.log(a, out=out)
    np.multiply(out, y, out=out)
    np.subtract(a, out, out=out)


def _poisson_derivative(a: Array, y: Array, out: Array, _: Scratch) -> None:
    """∂λ/∂a = 1 − y / a."""
    np.divide(y, a, out=out)
    np.subtract(1, out, out=out)


def _huber(limit: float) -> Cost:
    """Returns the squared error up to |a − y| = limit, and a straight line with the same slope beyond."""

    def value(a: Array, y: Array, out: Array, scratch: Scratch) -> None:
        """λ = m (r − m/2) with r = |a − y| and m = min(r, limit)."""
        np.subtract(a, y, out=out)
        np.abs(out, out=out)
        np.minimum(out, limit, out=scratch.spare)
        np.multiply(scratch.spare, -0.5, out=scratch.d)
        np.add(out, scratch.d, out=out)
        np.multiply(out, scratch.spare, out=out)

    def derivative(a: Array, y: Array, out: Array, _: Scratch) -> None:
        """∂λ/∂a = a − y, clipped to ±limit."""
        np.subtract(a, y, out=out)
        np.maximum(out, -limit, out=out)
        np.minimum(out, limit, out=out)

    return Cost(REAL, value, derivative)


COSTS = MappingProxyType(
    {
        "log_loss": Cost(OPEN_UNIT, _log_loss, _log_loss_derivative),
        "categorical_cross_entropy": Cost(OPEN_UNIT, _cross_entropy, _cross_entropy_derivative),
        "mean_squared_error": Cost(REAL, _squared_error, _difference),
        "mean_absolute_error": Cost(REAL, _absolute_error, _absolute_error_derivative),
        "huber": _huber(1.0),
        "poisson": Cost(POSITIVE, _poisson, _poisson_derivative),
    }
)
"""Costs by their names in a spec; huber has its default limit."""

CANCELLED_FORMS = MappingProxyType(
    {
        ("log_loss", "sigmoid"): CancelledForm(_log_loss_of_sigmoid, _difference),
        ("categorical_cross_entropy", "softmax"): CancelledForm(
            _cross_entropy_of_softmax, _cross_entropy_of_softmax_delta
        ),
        ("mean_squared_error", "identity"): CancelledForm(_squared_error, _difference),
    }
)
"""Cancelled forms by the names of cost and output activation."""


def cost_function(name: str, huber_delta: float = 1.0) -> Cost:
    """Returns the cost of that name.

    Args:
        name: One of COSTS.
        huber_delta: Value of |a − y| at which huber becomes linear, in units of the output.
    """
    return _huber(huber_delta) if name == "huber" else COSTS[name]


def valid_pair(cost: str, output_activation: str) -> bool:
    """Returns True if the cost and its derivative are finite on the whole range of the output activation."""
    return ACTIVATIONS[output_activation].range.within(COSTS[cost].domain)
