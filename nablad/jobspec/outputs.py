"""Pairs of cost function and output activation: those that are allowed, and those that are chosen by default.

A cost function λ(a, y) is defined on a range of outputs a; an output activation fits it if every φ(z) lies in
that range.
"""

from collections.abc import Mapping

from nablad.jobspec.names import name_of
from nablad.v1 import job_spec_pb2 as v1
from nablad.v1.job_spec_pb2 import Activation, CostFunction

__all__ = ["ALLOWED_OUTPUTS", "UNIT_INTERVAL", "cost_for", "misfit", "output_allowed", "output_for"]

UNIT_INTERVAL: frozenset[Activation.ValueType] = frozenset({v1.ACTIVATION_SIGMOID, v1.ACTIVATION_SOFTMAX})
"""Activations that stay in (0, 1)."""

_EVERY: frozenset[Activation.ValueType] = frozenset(Activation.values()) - {v1.ACTIVATION_UNSPECIFIED}

ALLOWED_OUTPUTS: Mapping[CostFunction.ValueType, frozenset[Activation.ValueType]] = {
    v1.COST_FUNCTION_LOG_LOSS: UNIT_INTERVAL,
    v1.COST_FUNCTION_CATEGORICAL_CROSS_ENTROPY: UNIT_INTERVAL,
    v1.COST_FUNCTION_MEAN_SQUARED_ERROR: _EVERY,
    v1.COST_FUNCTION_MEAN_ABSOLUTE_ERROR: _EVERY,
    v1.COST_FUNCTION_HUBER: _EVERY,
    v1.COST_FUNCTION_POISSON: UNIT_INTERVAL | {v1.ACTIVATION_SOFTPLUS},
}
"""The output activations that each cost function is defined for."""

_NEEDS: Mapping[CostFunction.ValueType, str] = {
    v1.COST_FUNCTION_LOG_LOSS: "outputs in (0, 1)",
    v1.COST_FUNCTION_CATEGORICAL_CROSS_ENTROPY: "outputs in (0, 1)",
    v1.COST_FUNCTION_POISSON: "outputs above 0",
}

_GIVES: Mapping[Activation.ValueType, str] = {
    v1.ACTIVATION_SIGMOID: "numbers in (0, 1)",
    v1.ACTIVATION_TANH: "numbers in (-1, 1)",
    v1.ACTIVATION_RELU: "0 and any number above",
    v1.ACTIVATION_LEAKY_RELU: "any number",
    v1.ACTIVATION_ELU: "any number above -1",
    v1.ACTIVATION_SELU: "any number above -1.76",
    v1.ACTIVATION_GELU: "any number from -0.17 up",
    v1.ACTIVATION_SOFTPLUS: "any number above 0",
    v1.ACTIVATION_SOFTSIGN: "numbers in (-1, 1)",
    v1.ACTIVATION_IDENTITY: "any number",
    v1.ACTIVATION_SOFTMAX: "numbers in (0, 1)",
}

_OUTPUT_FOR: Mapping[CostFunction.ValueType, Activation.ValueType] = {
    v1.COST_FUNCTION_LOG_LOSS: v1.ACTIVATION_SIGMOID,
    v1.COST_FUNCTION_CATEGORICAL_CROSS_ENTROPY: v1.ACTIVATION_SOFTMAX,
    v1.COST_FUNCTION_MEAN_SQUARED_ERROR: v1.ACTIVATION_IDENTITY,
    v1.COST_FUNCTION_MEAN_ABSOLUTE_ERROR: v1.ACTIVATION_IDENTITY,
    v1.COST_FUNCTION_HUBER: v1.ACTIVATION_IDENTITY,
    v1.COST_FUNCTION_POISSON: v1.ACTIVATION_SOFTPLUS,
}

_COST_FOR: Mapping[Activation.ValueType, CostFunction.ValueType] = {
    v1.ACTIVATION_SIGMOID: v1.COST_FUNCTION_LOG_LOSS,
    v1.ACTIVATION_SOFTMAX: v1.COST_FUNCTION_CATEGORICAL_CROSS_ENTROPY,
    v1.ACTIVATION_SOFTPLUS: v1.COST_FUNCTION_POISSON,
}


def output_allowed(cost: CostFunction.ValueType, output: Activation.ValueType) -> bool:
    """Returns true if the cost function is defined for every output of the activation, or if that is not known here."""
    return output in ALLOWED_OUTPUTS[cost] or output not in _GIVES


def misfit(cost: CostFunction.ValueType, output: Activation.ValueType) -> str:
    """Says why the cost function is not defined for the output activation, and what to do."""
    enum = Activation.DESCRIPTOR
    fitting = sorted(name_of(enum, activation) for activation in ALLOWED_OUTPUTS[cost])
    return (
        f"{name_of(CostFunction.DESCRIPTOR, cost)} needs {_NEEDS[cost]}, but {name_of(enum, output)} gives "
        f"{_GIVES[output]}; use {', '.join(fitting[:-1])} or {fitting[-1]}, or another cost function"
    )


def output_for(cost: CostFunction.ValueType) -> Activation.ValueType:
    """Returns the default output activation for a cost function; unspecified for one that is not known here."""
    return _OUTPUT_FOR.get(cost, v1.ACTIVATION_UNSPECIFIED)


def cost_for(output: Activation.ValueType, *, labels: bool | None) -> CostFunction.ValueType:
    """Returns the default cost function for an output activation.

    Args:
        output: The output activation.
        labels: True if the targets are class labels, false if they are values; None while that is not known. Only
            sigmoid depends on it: log_loss is for labels, because values may lie outside [0, 1].
    """
    if output == v1.ACTIVATION_SIGMOID and not labels:
        return v1.COST_FUNCTION_UNSPECIFIED if labels is None else v1.COST_FUNCTION_MEAN_SQUARED_ERROR
    return _COST_FOR.get(output, v1.COST_FUNCTION_MEAN_SQUARED_ERROR)
