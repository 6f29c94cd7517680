"""Initialisation of weights: seeded, and the same on every machine."""

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from workers.mathematics.arrays import Array
from workers.mathematics.parameters import ParameterLayout

# Keeps these draws apart from draws for other purposes under the same seed.
_STREAM = int.from_bytes(b"weights", "little")

Spread: TypeAlias = Callable[[int, int], float]  # (target nodes m, source nodes n)
Draw: TypeAlias = Callable[[np.random.Generator, int, float], npt.NDArray[np.float64]]  # (generator, size, spread)


def _uniform(generator: np.random.Generator, size: int, half_width: float) -> npt.NDArray[np.float64]:
    """Draws uniformly from ±half_width."""
    # Scaled in two explicit operations: within Generator.uniform a compiler may fuse them, and round only once.
    values = generator.random(size)
    values *= 2 * half_width
    values -= half_width
    return values


def _normal(generator: np.random.Generator, size: int, deviation: float) -> npt.NDArray[np.float64]:
    """Draws from the normal distribution with mean 0 and that standard deviation."""
    values = generator.standard_normal(size)
    values *= deviation
    return values


INITIALISATIONS: MappingProxyType[str, tuple[Draw, Spread]] = MappingProxyType(
    {
        "glorot_uniform": (_uniform, lambda m, n: math.sqrt(6 / (m + n))),
        "glorot_normal": (_normal, lambda m, n: math.sqrt(2 / (m + n))),
        "he_uniform": (_uniform, lambda _, n: math.sqrt(6 / n)),
        "he_normal": (_normal, lambda _, n: math.sqrt(2 / n)),
        "uniform": (_uniform, lambda _, __: 1.0),
        "normal": (_normal, lambda _, __: 1.0),
    }
)
"""Distributions of weights by their names in a spec; the spread is multiplied by the scale."""


def initialise(
    layout: ParameterLayout, name: str, scale: float, seed: int, dtype: np.dtype[Any] | type[np.floating[Any]]
) -> Array:
    """Draws the first weights; biases are 0.

    Every W(N) has a generator of its own, keyed by (seed, N), and is drawn in float64: float32 weights are the float64
    ones, rounded.

    Args:
        layout: Layout of the parameter vector.
        name: One of INITIALISATIONS.
        scale: Factor on the width of glorot and he; half-width of uniform; standard deviation of normal.
        seed: Seed of the job, not negative.
        dtype: Type of the parameter vector.

    Raises:
        ValueError: The name is unknown.
    """
    if name not in INITIALISATIONS:
        raise ValueError(f"Initialisation {name!r} is unknown; known are {', '.join(INITIALISATIONS)}.")
    draw, spread = INITIALISATIONS[name]
    vector = np.zeros(layout.size, dtype)
    for number, (weights, _) in enumerate(layout.views(vector)):
        key = np.random.SeedSequence(seed, spawn_key=(_STREAM, number))
        values = draw(np.random.Generator(np.random.PCG64(key)), weights.size, scale * spread(*weights.shape))
        weights[...] = values.reshape(weights.shape)
    return vector
