"""Fields that mean something only together with certain values of fields beside them."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from nablad.jobspec.names import name_of
from nablad.v1 import job_spec_pb2 as v1

__all__ = ["APPLIES_WITH", "Condition", "applies"]


class Condition(Protocol):
    """What must hold for a field to mean anything."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the fields of the same message that decide."""

    def holds(self, message: Message) -> bool:
        """Whether they say yes."""

    def refusal(self, message: Message) -> str:
        """What the field is for and what the message has instead, where they say no: the end of a sentence."""


class Chosen(NamedTuple):
    """A choice has one of certain values: the field that holds it, its type and the values."""

    field: str
    enum: EnumDescriptor
    values: frozenset[int]

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.field,)

    def holds(self, message: Message) -> bool:
        return getattr(message, self.field) in self.values

    def refusal(self, message: Message) -> str:
        chosen = getattr(message, self.field)
        fitting = " or ".join(sorted(name_of(self.enum, value) for value in self.values))
        now = f"is {name_of(self.enum, chosen)}" if chosen else "is left out"
        return f"it is only for {fitting}, and {self.field} {now}"


class AnyOf(NamedTuple):
    """At least one of some fields is given, and not as false."""

    reads: tuple[str, ...]

    def holds(self, message: Message) -> bool:
        return any(message.HasField(name) and getattr(message, name) is not False for name in self.reads)

    def refusal(self, message: Message) -> str:  # noqa: ARG002  # there is nothing in it that could be named
        return f"it is only for {' or '.join(self.reads)}, and there is neither"


_MOMENTUM = Chosen("name", v1.Optimizer.DESCRIPTOR, frozenset({v1.OPTIMIZER_MOMENTUM, v1.OPTIMIZER_NESTEROV}))
_ADAM = Chosen("name", v1.Optimizer.DESCRIPTOR, frozenset({v1.OPTIMIZER_ADAM}))

APPLIES_WITH: Mapping[str, Condition] = {
    "nablad.v1.CostSpec.huber_delta": Chosen(
        "function", v1.CostFunction.DESCRIPTOR, frozenset({v1.COST_FUNCTION_HUBER})
    ),
    "nablad.v1.InnerTerm.target": Chosen("term", v1.Term.DESCRIPTOR, frozenset({v1.TERM_SPARSITY})),
    "nablad.v1.OptimizerSpec.momentum": _MOMENTUM,
    "nablad.v1.OptimizerSpec.beta1": _ADAM,
    "nablad.v1.OptimizerSpec.beta2": _ADAM,
    "nablad.v1.OptimizerSpec.eps": _ADAM,
    "nablad.v1.StoppingSpec.minimum_improvement": AnyOf(("patience", "keep_best")),
}
"""By the full name of the field. A field that is not here applies always."""


def applies(message: Message, field: FieldDescriptor) -> bool:
    """Whether the field means anything beside the message's other values."""
    condition = APPLIES_WITH.get(field.full_name)
    return condition is None or condition.holds(message)
