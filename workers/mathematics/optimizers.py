"""Optimizers: an update rule, its state, and the learning rate.

An update takes the gradient in blocks of the vector and processes each once, while it is still in the cache. It writes
to the parameters, uses the blocks as scratch and reuses the arrays of the last state for the next one. Its result does
not depend on the sizes of the blocks. g is the mean gradient over a mini-batch, ε the learning rate of the step.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from workers.mathematics.arrays import Array


class OptimizerState(NamedTuple):
    """State of an optimizer between two updates.

    To restore a saved one: ``rule.init(parameters)._replace(updates=…, moments=…)``.
    """

    updates: int  # so far
    moments: tuple[Array, ...] = ()  # each (parameters,); velocity of momentum and nesterov, m and v of adam


Block: TypeAlias = tuple[slice, Array]  # (place in the vector, sum of the samples' gradients at that place)
LearningRate: TypeAlias = Callable[[int], float]  # (number of the step, from 1) → ε
Factors: TypeAlias = Callable[[int, float, int], tuple[float, ...]]  # (step from 1, ε, samples) → numbers of an update
Rule: TypeAlias = Callable[..., None]  # (factors, parameters, sum, moments…), all in place


@dataclass(frozen=True)
class Optimizer:
    """Update rule with its learning rate.

    Attributes:
        name: sgd, momentum, nesterov or adam.
        learning_rate: Function from the number of a step, counted from 1, to the ε of its update. The only source of
            ε, also for reports.
        factors: Function that returns all numbers that the rule multiplies with, or adds, in one update.
        rule: Update of one block with these numbers.
        moments: Number of vectors in the state of the rule.
    """

    name: str
    learning_rate: LearningRate
    factors: Factors
    rule: Rule
    moments: int

    def init(self, parameters: Array) -> OptimizerState:
        """Returns the state before the first update of these parameters."""
        return OptimizerState(0, tuple(np.zeros_like(parameters) for _ in range(self.moments)))

    def update_factors(self, step: int, samples: int) -> tuple[float, ...]:
        """Returns the numbers of an update: all that depends on the step, counted from 1, and on its samples."""
        return self.factors(step, self.learning_rate(step), samples)

    def update(self, parameters: Array, blocks: Iterable[Block], samples: int, state: OptimizerState) -> OptimizerState:
        """Makes one update.

        Args:
            parameters: Parameter vector, shape (parameters,); updated in place.
            blocks: Parts of the gradient that cover the vector once, in any order, as sums over the samples: the 1/n of
                equation 83 is part of the first factor, and needs no separate pass.
            samples: Number of samples of the mini-batch.
            state: State before the update; its arrays are reused.

        Returns:
            State after the update.
        """
        step = state.updates + 1
        factors = self.update_factors(step, samples)
        for where, total in blocks:
            self.rule(factors, parameters[where], total, *(moment[where] for moment in state.moments))
        return OptimizerState(step, state.moments)


# The native library has the same rules with the same factors (workers/native/update_typed.h); a test holds both equal.


def _sgd(factors: tuple[float, ...], w: Array, g: Array) -> None:
    """W ← W − ε g (equation 94, with its sign)."""
    (factor,) = factors
    np.multiply(g, factor, out=g)
    np.subtract(w, g, out=w)


def _momentum(factors: tuple[float, ...], w: Array, g: Array, velocity: Array) -> None:
    """Velocity v ← μ v − ε g; W ← W + v."""
    _accelerate(factors, g, velocity)
    np.add(w, velocity, out=w)


def _nesterov(factors: tuple[float, ...], w: Array, g: Array, velocity: Array) -> None:
    """Velocity v ← μ v − ε g; W ← W + μ v − ε g."""
    _accelerate(factors, g, velocity)
    np.subtract(w, g, out=w)
    np.multiply(velocity, factors[1], out=g)
    np.add(w, g, out=w)


def _accelerate(factors: tuple[float, ...], g: Array, velocity: Array) -> None:
    """Velocity v ← μ v − factor g, and g becomes factor g."""
    factor, momentum = factors
    np.multiply(g, factor, out=g)
    np.multiply(velocity, momentum, out=velocity)
    np.subtract(velocity, g, out=velocity)


def _adam(factors: tuple[float, ...], w: Array, g: Array, m: Array, v: Array) -> None:
    """Algorithm 1 of Kingma and Ba, "Adam: a method for stochastic optimization" (2015).

    m ← β₁ m + (1 − β₁) g; v ← β₂ v + (1 − β₂) g²; W ← W − ε m̂ / (√v̂ + eps), with m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ).
    """
    mean, beta1, square, beta2, correction, eps, rate = factors
    np.multiply(g, mean, out=g)
    np.multiply(m, beta1, out=m)
    np.add(m, g, out=m)
    # Here g is (1 − β₁) times the mean gradient.
    np.multiply(g, g, out=g)
    np.multiply(g, square, out=g)
    np.multiply(v, beta2, out=v)
    np.add(v, g, out=v)
    np.sqrt(v, out=g)
    np.multiply(g, correction, out=g)
    np.add(g, max(eps, float(np.finfo(g.dtype).tiny)), out=g)  # an eps that rounds to 0 would allow 0/0
    np.divide(m, g, out=g)
    np.multiply(g, rate, out=g)
    np.subtract(w, g, out=w)


def _adam_factors(beta1: float, beta2: float, eps: float) -> Factors:
    def factors(t: int, epsilon: float, n: int) -> tuple[float, ...]:
        mean, square = (1 - beta1) / n, (1 - beta2) / (1 - beta1) ** 2
        return mean, beta1, square, beta2, 1 / math.sqrt(1 - beta2**t), eps, epsilon / (1 - beta1**t)

    return factors


def optimizer(
    name: str,
    learning_rate: float,
    *,
    momentum: float = 0.9,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> Optimizer:
    """Returns the update rule of that name.

    Args:
        name: sgd, momentum, nesterov or adam.
        learning_rate: ε, the same in every step.
        momentum: μ of momentum and nesterov, in [0, 1).
        beta1: Decay of adam's mean gradient, in [0, 1).
        beta2: Decay of adam's mean squared gradient, in [0, 1).
        eps: Added to adam's denominator.

    Raises:
        ValueError: The name is unknown.
    """

    def constant(_step: int) -> float:
        return learning_rate

    match name:
        case "sgd":
            return Optimizer(name, constant, lambda _, epsilon, n: (epsilon / n,), _sgd, moments=0)
        case "momentum" | "nesterov":
            rule = _momentum if name == "momentum" else _nesterov
            return Optimizer(name, constant, lambda _, epsilon, n: (epsilon / n, momentum), rule, moments=1)
        case "adam":
            return Optimizer(name, constant, _adam_factors(beta1, beta2, eps), _adam, moments=2)
    raise ValueError(f"Optimizer {name!r} is unknown; known are sgd, momentum, nesterov, adam.")
