"""Conditional fields: they apply only beside certain values of other fields of their message."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from nablad.jobspec.fields import is_given, walk
from nablad.jobspec.names import name_of, shown
from nablad.jobspec.violations import RuleViolation
from nablad.v1 import job_spec_pb2 as v1
from nablad.v1.job_spec_pb2 import JobSpec

__all__ = ["applies", "nothing_is_ignored"]


class Condition(Protocol):
    """The condition under which a field applies."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the fields of the same message that the condition reads."""

    def holds(self, message: Message) -> bool:
        """Returns true if the field applies in this message."""

    def reason(self, message: Message) -> str:
        """Says when the field applies, and what this message has instead: the end of a sentence."""


class Chosen(NamedTuple):
    """Holds if an enum field has one of certain values.

    Attributes:
        field: Name of the enum field.
        enum: Its type.
        values: The values with which the condition holds.
    """

    field: str
    enum: EnumDescriptor
    values: frozenset[int]

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.field,)

    def holds(self, message: Message) -> bool:
        return getattr(message, self.field) in self.values

    def reason(self, message: Message) -> str:
        chosen = getattr(message, self.field)
        fitting = " or ".join(sorted(name_of(self.enum, value) for value in self.values))
        now = f"is {name_of(self.enum, chosen)}" if chosen else "is left out"
        return f"it is only for {fitting}, and {self.field} {now}"


class AnyOf(NamedTuple):
    """Holds if at least one of some fields is given, and not as false."""

    reads: tuple[str, ...]

    def holds(self, message: Message) -> bool:
        return any(message.HasField(name) and getattr(message, name) is not False for name in self.reads)

    def reason(self, message: Message) -> str:  # noqa: ARG002  # no field of it could be named
        return f"it is only for {' or '.join(self.reads)}, and there is neither"


_MOMENTUM = Chosen("name", v1.Optimizer.DESCRIPTOR, frozenset({v1.OPTIMIZER_MOMENTUM, v1.OPTIMIZER_NESTEROV}))
_ADAM = Chosen("name", v1.Optimizer.DESCRIPTOR, frozenset({v1.OPTIMIZER_ADAM}))

_CONDITIONS: Mapping[str, Condition] = {
    "nablad.v1.CostSpec.huber_delta": Chosen(
        "function", v1.CostFunction.DESCRIPTOR, frozenset({v1.COST_FUNCTION_HUBER})
    ),
    "nablad.v1.InnerTerm.target": Chosen("term", v1.Term.DESCRIPTOR, frozenset({v1.TERM_SPARSITY})),
    "nablad.v1.PolicySpec.spare_micro_batches": Chosen("name", v1.Policy.DESCRIPTOR, frozenset({v1.POLICY_BACKUP})),
    "nablad.v1.OptimizerSpec.momentum": _MOMENTUM,
    "nablad.v1.OptimizerSpec.beta1": _ADAM,
    "nablad.v1.OptimizerSpec.beta2": _ADAM,
    "nablad.v1.OptimizerSpec.eps": _ADAM,
    "nablad.v1.StoppingSpec.minimum_improvement": AnyOf(("patience", "keep_best")),
}
"""Conditions by the full name of the field. A field without one applies always."""


def applies(message: Message, field: FieldDescriptor) -> bool:
    """Returns true if the field has an effect beside the message's other values."""
    condition = _CONDITIONS.get(field.full_name)
    return condition is None or condition.holds(message)


def nothing_is_ignored(spec: JobSpec) -> Iterator[RuleViolation]:
    """A field that would have no effect is not given."""
    for message, field, path in walk(spec):
        if not is_given(message, field) or applies(message, field):
            continue
        condition = _CONDITIONS[field.full_name]
        text = f"got {shown(getattr(message, field.name))}, but {condition.reason(message)}"
        yield RuleViolation(path, text, tuple(f"{path.rpartition('.')[0]}.{name}" for name in condition.reads))
