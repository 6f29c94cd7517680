"""Activations φ, each beside its derivative.

``apply`` writes a = φ(z). Most derivatives are taken through a, which is cheaper; z may then be overwritten by a (the
two are one array). An activation that ``keeps_z`` takes its derivative through z and needs both. ``back`` turns ∂Λ/∂a
into ∂Λ/∂z in place: the product with D(N) = ∂φ/∂z (equations 16, 33, 80), or with the Jacobian of softmax.

All arrays have the shape (nodes, samples) and one dtype, float32 or float64. Ranges are those of exact arithmetic: an
end may be open although rounding can reach it. At a kink the derivative is the one from the left.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from workers.mathematics.arrays import ONE, OPEN_UNIT, POSITIVE, REAL, ZERO, Array, Interval, Scratch

Apply: TypeAlias = Callable[[Array, Array, Scratch], None]  # (z, a, scratch): writes a
Derivative: TypeAlias = Callable[[Array, Array, Scratch], None]  # (a or z, d, scratch): writes d, may use scratch.spare
Back: TypeAlias = Callable[[Array, Array, Scratch], None]  # (delta, a or z, scratch): delta becomes ∂Λ/∂z

LEAK = 0.01
SELU_SCALE = 1.0507009873554805
SELU_FLOOR = SELU_SCALE * 1.6732632423543772  # scale * alpha: the limit for z → -∞ is -SELU_FLOOR
GELU_SLOPE = 2 * math.sqrt(2 / math.pi)
GELU_CUBIC = 0.044715


@dataclass(frozen=True)
class Activation:
    """An activation function.

    Attributes:
        range: Interval of a = φ(z).
        apply: Writes a = φ(z).
        back: Turns ∂Λ/∂a into ∂Λ/∂z.
        keeps_z: True if ``back`` takes z and not a.
        couples_nodes: True if a of a node depends on z of other nodes.
    """

    range: Interval
    apply: Apply
    back: Back
    keeps_z: bool = False
    couples_nodes: bool = False


def _element_wise(derivative: Derivative) -> Back:
    """Returns the function that turns ∂Λ/∂a into δ = ∂Λ/∂a * D."""

    def back(delta: Array, source: Array, scratch: Scratch) -> None:
        derivative(source, scratch.d, scratch)
        np.multiply(delta, scratch.d, out=delta)

    return back


@np.errstate(over="ignore")
def _sigmoid(z: Array, a: Array, _: Scratch) -> None:
    """φ(z) = 1 / (1 + exp(−z)) (equation 14); where exp(−z) overflows to ∞, the result 0 is correct."""
    np.negative(z, out=a)
    np.exp(a, out=a)
    np.add(a, ONE[a.dtype], out=a)
    np.divide(ONE[a.dtype], a, out=a)  # faster than np.reciprocal


def _sigmoid_derivative(a: Array, d: Array, _: Scratch) -> None:
    """D = a (1 − a) (equation 16)."""
    np.subtract(ONE[a.dtype], a, out=d)
    np.multiply(d, a, out=d)


def _tanh(z: Array, a: Array, _: Scratch) -> None:
    """φ(z) = tanh z."""
    np.tanh(z, out=a)


def _tanh_derivative(a: Array, d: Array, _: Scratch) -> None:
    """D = 1 − a²."""
    np.multiply(a, a, out=d)
    np.subtract(ONE[d.dtype], d, out=d)


def _relu(z: Array, a: Array, _: Scratch) -> None:
    """φ(z) = max(z, 0)."""
    np.maximum(z, ZERO[z.dtype], out=a)


def _relu_derivative(a: Array, d: Array, _: Scratch) -> None:
    """D = 1 where a > 0, else 0; a is never negative."""
    np.sign(a, out=d)


def _leaky_relu(z: Array, a: Array, scratch: Scratch) -> None:
    """φ(z) = z for z > 0, else 0.01 z."""
    np.multiply(z, LEAK, out=scratch.spare)
    np.maximum(z, scratch.spare, out=a)


def _leaky_relu_derivative(a: Array, d: Array, _: Scratch) -> None:
    """D = 1 where a > 0, else 0.01."""
    np.sign(a, out=d)
    np.maximum(d, LEAK, out=d)


def _elu(z: Array, a: Array, scratch: Scratch) -> None:
    """φ(z) = z for z > 0, else exp(z) − 1."""
    np.minimum(z, 0, out=scratch.spare)
    np.expm1(scratch.spare, out=scratch.spare)
    np.maximum(z, 0, out=a)
    np.add(a, scratch.spare, out=a)


def _elu_derivative(a: Array, d: Array, _: Scratch) -> None:
    """D = 1 where a > 0, else exp(z) = a + 1."""
    np.minimum(a, 0, out=d)
    np.add(d, 1, out=d)


def _selu(z: Array, a: Array, scratch: Scratch) -> None:
    """φ(z) = scale z for z > 0, else scale alpha (exp(z) − 1)."""
    np.minimum(z, 0, out=scratch.spare)
    np.expm1(scratch.spare, out=scratch.spare)
    np.multiply(scratch.spare, SELU_FLOOR, out=scratch.spare)
    np.maximum(z, 0, out=a)
    np.multiply(a, SELU_SCALE, out=a)
    np.add(a, scratch.spare, out=a)


def _selu_derivative(a: Array, d: Array, scratch: Scratch) -> None:
    """D = scale where a > 0, else scale alpha exp(z) = a + scale alpha."""
    np.minimum(a, 0, out=d)
    np.add(d, SELU_FLOOR, out=d)
    np.heaviside(a, 0, out=scratch.spare)
    np.multiply(scratch.spare, SELU_SCALE - SELU_FLOOR, out=scratch.spare)
    np.add(d, scratch.spare, out=d)


def _gelu_gate(z: Array, gate: Array, scratch: Scratch) -> None:
    """Gate ½ (1 + tanh u) = sigmoid(2u), u = √(2/π) (z + 0.044715 z³); the sigmoid avoids cancellation for z < 0."""
    np.multiply(z, z, out=gate)
    np.multiply(gate, GELU_SLOPE * GELU_CUBIC, out=gate)
    np.add(gate, GELU_SLOPE, out=gate)
    np.multiply(gate, z, out=gate)
    _sigmoid(gate, gate, scratch)


def _gelu(z: Array, a: Array, scratch: Scratch) -> None:
    """φ(z) = z gate(z), the tanh form of z times the normal distribution function."""
    _gelu_gate(z, a, scratch)
    np.multiply(a, z, out=a)


def _gelu_derivative(z: Array, d: Array, scratch: Scratch) -> None:
    """D = gate (1 + z (1 − gate) 2u′) with 2u′ = 2√(2/π) (1 + 3 · 0.044715 z²)."""
    gate = rest = scratch.spare
    _gelu_gate(z, gate, scratch)
    np.subtract(1, gate, out=rest)
    np.multiply(z, z, out=d)
    np.multiply(d, 3 * GELU_CUBIC * GELU_SLOPE, out=d)
    np.add(d, GELU_SLOPE, out=d)
    np.multiply(d, z, out=d)
    np.multiply(d, rest, out=d)
    np.add(d, 1, out=d)
    np.subtract(1, rest, out=gate)
    np.multiply(d, gate, out=d)


def _softplus(z: Array, a: Array, scratch: Scratch) -> None:
    """φ(z) = log(1 + exp z) = max(z, 0) + log(1 + exp(−|z|))."""
    np.abs(z, out=scratch.spare)
    np.negative(scratch.spare, out=scratch.spare)
    np.exp(scratch.spare, out=scratch.spare)
    np.log1p(scratch.spare, out=scratch.spare)
    np.maximum(z, 0, out=a)
    np.add(a, scratch.spare, out=a)


def _softplus_derivative(a: Array, d: Array, _: Scratch) -> None:
    """D = sigmoid(z) = 1 − exp(−a)."""
    np.negative(a, out=d)
    np.expm1(d, out=d)
    np.negative(d, out=d)


def _softsign(z: Array, a: Array, scratch: Scratch) -> None:
    """φ(z) = z / (1 + |z|)."""
    np.abs(z, out=scratch.spare)
    np.add(scratch.spare, 1, out=scratch.spare)
    np.divide(z, scratch.spare, out=a)


def _softsign_derivative(a: Array, d: Array, _: Scratch) -> None:
    """D = 1 / (1 + |z|)² = (1 − |a|)²."""
    np.abs(a, out=d)
    np.subtract(1, d, out=d)
    np.multiply(d, d, out=d)


def _identity(z: Array, a: Array, _: Scratch) -> None:
    """φ(z) = z."""
    np.copyto(a, z)


def _identity_back(_delta: Array, _source: Array, _scratch: Scratch) -> None:
    """D = 1."""


def _softmax(z: Array, a: Array, scratch: Scratch) -> None:
    """φ(z) = exp(z − m) / Σ exp(z − m) over the nodes; m = max z, so no exp overflows and the sum is at least 1."""
    np.maximum.reduce(z, axis=0, keepdims=True, out=scratch.row)
    np.copyto(scratch.spare, scratch.row)
    np.subtract(z, scratch.spare, out=a)
    np.exp(a, out=a)
    np.add.reduce(a, axis=0, keepdims=True, out=scratch.row)
    np.copyto(scratch.spare, scratch.row)
    np.divide(a, scratch.spare, out=a)


def _softmax_back(delta: Array, a: Array, scratch: Scratch) -> None:
    """δ = Jᵀ ∂Λ/∂a with J = diag(a) − a aᵀ: δ = a * (∂Λ/∂a − Σ a ∂Λ/∂a), the sum over the nodes."""
    np.multiply(delta, a, out=scratch.spare)
    np.add.reduce(scratch.spare, axis=0, keepdims=True, out=scratch.row)
    np.copyto(scratch.spare, scratch.row)
    np.subtract(delta, scratch.spare, out=delta)
    np.multiply(delta, a, out=delta)


ACTIVATIONS = MappingProxyType(
    {
        "sigmoid": Activation(OPEN_UNIT, _sigmoid, _element_wise(_sigmoid_derivative)),
        "tanh": Activation(Interval(-1, 1), _tanh, _element_wise(_tanh_derivative)),
        "relu": Activation(Interval(0, low_included=True), _relu, _element_wise(_relu_derivative)),
        "leaky_relu": Activation(REAL, _leaky_relu, _element_wise(_leaky_relu_derivative)),
        "elu": Activation(Interval(-1), _elu, _element_wise(_elu_derivative)),
        "selu": Activation(Interval(-SELU_FLOOR), _selu, _element_wise(_selu_derivative)),
        # The minimum lies at z = −0.75 and is −0.17004075; this bound is just below it.
        "gelu": Activation(Interval(-0.17004076), _gelu, _element_wise(_gelu_derivative), keeps_z=True),
        "softplus": Activation(POSITIVE, _softplus, _element_wise(_softplus_derivative)),
        "softsign": Activation(Interval(-1, 1), _softsign, _element_wise(_softsign_derivative)),
        "identity": Activation(REAL, _identity, _identity_back),
        "softmax": Activation(OPEN_UNIT, _softmax, _softmax_back, couples_nodes=True),
    }
)
"""Activations by their names in a spec."""
