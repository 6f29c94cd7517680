"""Small networks with data, and the measures that the proofs share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from workers.mathematics.back_propagation import BackPropagation
from workers.mathematics.initialisations import initialise
from workers.mathematics.network import Network
from workers.mathematics.sums import SampleSums

Array = npt.NDArray[Any]


@dataclass
class Case:
    """A network with parameters and one micro-batch."""

    back_propagation: BackPropagation
    parameters: Array
    x: Array
    targets: Array

    def gradient(self, rows: Any = slice(None)) -> tuple[Array, SampleSums]:
        out = np.full_like(self.parameters, np.nan)
        x, targets = np.ascontiguousarray(self.x[rows]), self.targets[rows]
        return out, self.back_propagation.gradient(self.parameters, x, targets, out)

    def cost_at(self, parameters: Array) -> float:
        return self.back_propagation.evaluate(parameters, self.x, self.targets).cost_sum


def _values(cost: str, shape: tuple[int, int], generator: np.random.Generator) -> Array:
    match cost:
        case "log_loss" | "categorical_cross_entropy":
            return generator.random(shape)
        case "poisson":
            return generator.poisson(2.0, shape).astype(np.float64)
    return generator.uniform(-0.2, 1.2, shape)


@pytest.fixture(scope="session")
def make_case() -> Callable[..., Case]:
    """A network's case: parameters of ordinary size, biases not 0, and values or class labels as targets."""

    def make(
        network: Network, *, samples: int = 4, seed: int = 1, dtype: type = np.float64, labels: bool = False
    ) -> Case:
        generator = np.random.default_rng(seed)
        back_propagation = BackPropagation(network, dtype)
        parameters = initialise(back_propagation.layout, "normal", 0.7, seed, dtype)
        x = generator.normal(size=(samples, network.layers[0])).astype(dtype)
        if labels:
            targets: Array = generator.integers(0, max(network.layers[-1], 2), samples)
        else:
            targets = _values(network.cost, (samples, network.layers[-1]), generator).astype(dtype)
        for _, bias in back_propagation.layout.views(parameters):
            if bias is not None:
                bias[...] = generator.normal(size=bias.shape)
        return Case(back_propagation, parameters, x, targets)

    return make


@pytest.fixture(scope="session")
def directional_error() -> Callable[[Case], float]:
    """How far the gradient is from central differences of the cost along a few directions, relative to its length.

    That of a wrong gradient is 0 along hardly any direction: this finds what differences along every axis find, in
    fewer evaluations.
    """

    def error(case: Case) -> float:
        directions = np.random.default_rng(7).normal(size=(_DIRECTIONS, len(case.parameters)))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        gradient, _ = case.gradient()
        scale = np.linalg.norm(gradient)
        assert scale > 1e-3, "a gradient of 0 proves nothing: take other targets or another seed"
        above, below = case.parameters + _STEP * directions, case.parameters - _STEP * directions
        differences = [case.cost_at(a) - case.cost_at(b) for a, b in zip(above, below, strict=True)]
        errors = directions @ gradient - np.array(differences) / (2 * _STEP)
        # The expected square along one direction is that of the whole error by the number of parameters.
        return float(np.linalg.norm(errors) * np.sqrt(len(gradient) / _DIRECTIONS) / scale)

    return error


_STEP = 1e-5
_DIRECTIONS = 3


@pytest.fixture(scope="session")
def central_difference_error() -> Callable[[Case], float]:
    """How far the gradient is from central differences of the cost, relative to these."""

    def error(case: Case) -> float:
        differences = np.empty_like(case.parameters)
        for index in range(len(case.parameters)):
            above, below = case.parameters.copy(), case.parameters.copy()
            above[index] += _STEP
            below[index] -= _STEP
            differences[index] = (case.cost_at(above) - case.cost_at(below)) / (2 * _STEP)
        gradient, _ = case.gradient()
        scale = np.linalg.norm(differences)
        assert scale > 1e-3, "a gradient of 0 proves nothing: take other targets or another seed"
        return float(np.linalg.norm(gradient - differences) / scale)

    return error
