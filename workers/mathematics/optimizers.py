"""Update rules, each a pair of functions: the first state, and one update.

``update`` takes the mean gradient in blocks of the vector and goes once over each, while it is still in the cache. It
writes to the parameters it is given, uses the blocks as scratch and lets the next state take over the arrays of the
last; apart from these it depends on nothing, and not on how the vector is cut. g is the mean gradient over a
mini-batch, ε the learning rate.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from workers.mathematics.arrays import Array


class OptimizerState(NamedTuple):
    """What an optimizer remembers from one update to the next.

    To restore a saved one: ``rule.init(parameters)._replace(updates=…, moments=…)``.
    """

    updates: int  # so far
    moments: tuple[Array, ...] = ()  # each (parameters,); velocity of momentum and nesterov, m and v of adam


Block: TypeAlias = tuple[slice, Array]  # where in the vector, and the sum of the samples' gradients there
Init: TypeAlias = Callable[[Array], OptimizerState]  # (parameters)
Update: TypeAlias = Callable[[Array, Iterable[Block], int, OptimizerState], OptimizerState]
Rule: TypeAlias = Callable[..., None]  # (number of the update from 1, samples, parameters, sum, moments…), all in place


@dataclass(frozen=True)
class Optimizer:
    """An update rule.

    Attributes:
        init: The state before the first update of such parameters.
        update: From (parameters, blocks, samples, state) makes one update, with blocks that cover the vector once, in
            any order; answers the state after it. The blocks hold sums over so many samples: the 1/n of equation 83 is
            part of the first factor, and costs no pass of its own.
    """

    init: Init
    update: Update


def _sgd(learning_rate: float) -> Rule:
    """W ← W − ε g (equation 94, with its sign)."""

    def rule(_: int, n: int, w: Array, g: Array) -> None:
        np.multiply(g, learning_rate / n, out=g)
        np.subtract(w, g, out=w)

    return rule


def _momentum(learning_rate: float, momentum: float) -> Rule:
    """Velocity v ← μ v − ε g; W ← W + v."""

    def rule(_: int, n: int, w: Array, g: Array, velocity: Array) -> None:
        _accelerate(velocity, g, learning_rate / n, momentum)
        np.add(w, velocity, out=w)

    return rule


def _nesterov(learning_rate: float, momentum: float) -> Rule:
    """Velocity v ← μ v − ε g; W ← W + μ v − ε g."""

    def rule(_: int, n: int, w: Array, g: Array, velocity: Array) -> None:
        _accelerate(velocity, g, learning_rate / n, momentum)
        np.subtract(w, g, out=w)
        np.multiply(velocity, momentum, out=g)
        np.add(w, g, out=w)

    return rule


def _accelerate(velocity: Array, g: Array, factor: float, momentum: float) -> None:
    """Velocity v ← μ v − factor g, and g becomes factor g."""
    np.multiply(g, factor, out=g)
    np.multiply(velocity, momentum, out=velocity)
    np.subtract(velocity, g, out=velocity)


def _adam(learning_rate: float, beta1: float, beta2: float, eps: float) -> Rule:
    """Algorithm 1 of Kingma and Ba, "Adam: a method for stochastic optimization" (2015).

    m ← β₁ m + (1 − β₁) g; v ← β₂ v + (1 − β₂) g²; W ← W − ε m̂ / (√v̂ + eps), with m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ).
    """

    def rule(t: int, n: int, w: Array, g: Array, m: Array, v: Array) -> None:
        np.multiply(g, (1 - beta1) / n, out=g)
        np.multiply(m, beta1, out=m)
        np.add(m, g, out=m)
        # g is (1 − β₁) times the mean gradient by now.
        np.multiply(g, g, out=g)
        np.multiply(g, (1 - beta2) / (1 - beta1) ** 2, out=g)
        np.multiply(v, beta2, out=v)
        np.add(v, g, out=v)
        np.sqrt(v, out=g)
        np.multiply(g, 1 / math.sqrt(1 - beta2**t), out=g)
        np.add(g, max(eps, float(np.finfo(g.dtype).tiny)), out=g)  # an eps that rounds to 0 would allow 0/0
        np.divide(m, g, out=g)
        np.multiply(g, learning_rate / (1 - beta1**t), out=g)
        np.subtract(w, g, out=w)

    return rule


def _optimizer(rule: Rule, moments: int) -> Optimizer:
    def init(parameters: Array) -> OptimizerState:
        return OptimizerState(0, tuple(np.zeros_like(parameters) for _ in range(moments)))

    def update(parameters: Array, blocks: Iterable[Block], samples: int, state: OptimizerState) -> OptimizerState:
        updates = state.updates + 1
        for where, total in blocks:
            rule(updates, samples, parameters[where], total, *(moment[where] for moment in state.moments))
        return OptimizerState(updates, state.moments)

    return Optimizer(init, update)


def optimizer(
    name: str,
    learning_rate: float,
    *,
    momentum: float = 0.9,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> Optimizer:
    """The update rule of that name.

    Args:
        name: sgd, momentum, nesterov or adam.
        learning_rate: ε.
        momentum: μ of momentum and nesterov, in [0, 1).
        beta1: Decay of adam's mean gradient, in [0, 1).
        beta2: Decay of adam's mean squared gradient, in [0, 1).
        eps: Added to adam's denominator.

    Raises:
        ValueError: The name is unknown.
    """
    match name:
        case "sgd":
            return _optimizer(_sgd(learning_rate), moments=0)
        case "momentum":
            return _optimizer(_momentum(learning_rate, momentum), moments=1)
        case "nesterov":
            return _optimizer(_nesterov(learning_rate, momentum), moments=1)
        case "adam":
            return _optimizer(_adam(learning_rate, beta1, beta2, eps), moments=2)
    raise ValueError(f"Optimizer {name!r} is unknown; known are sgd, momentum, nesterov, adam.")
