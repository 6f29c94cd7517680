"""Fields that mean something only together with certain values of a field beside them."""

from collections.abc import Mapping
from typing import NamedTuple

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from nablad.v1 import job_spec_pb2 as v1

__all__ = ["APPLIES_WITH", "Selector", "applies"]


class Selector(NamedTuple):
    """The field of the same message that decides, its type and the values with which it says yes."""

    field: str
    enum: EnumDescriptor
    values: frozenset[int]


_MOMENTUM = Selector("name", v1.Optimizer.DESCRIPTOR, frozenset({v1.OPTIMIZER_MOMENTUM, v1.OPTIMIZER_NESTEROV}))
_ADAM = Selector("name", v1.Optimizer.DESCRIPTOR, frozenset({v1.OPTIMIZER_ADAM}))

APPLIES_WITH: Mapping[str, Selector] = {
    "nablad.v1.CostSpec.huber_delta": Selector(
        "function", v1.CostFunction.DESCRIPTOR, frozenset({v1.COST_FUNCTION_HUBER})
    ),
    "nablad.v1.InnerTerm.target": Selector("term", v1.Term.DESCRIPTOR, frozenset({v1.TERM_SPARSITY})),
    "nablad.v1.OptimizerSpec.momentum": _MOMENTUM,
    "nablad.v1.OptimizerSpec.beta1": _ADAM,
    "nablad.v1.OptimizerSpec.beta2": _ADAM,
    "nablad.v1.OptimizerSpec.eps": _ADAM,
}
"""By the full name of the field. A field that is not here applies always."""


def applies(message: Message, field: FieldDescriptor) -> bool:
    """Whether the field means anything beside the message's other values."""
    selector = APPLIES_WITH.get(field.full_name)
    return selector is None or getattr(message, selector.field) in selector.values
