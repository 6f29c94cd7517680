"""What is wrong with a spec: the constraints declared in the contract, and the rules between fields."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from nablad.errors import Violation
from nablad.jobspec.completion import complete
from nablad.jobspec.fields import INTEGERS, allowed, constraint_of, is_given, is_too_long, order, overlap, walk
from nablad.jobspec.findings import Finding
from nablad.jobspec.names import name_of, shown
from nablad.jobspec.rules import RULES
from nablad.v1.constraints_pb2 import Constraint
from nablad.v1.job_spec_pb2 import JobSpec

__all__ = ["violations"]


def violations(spec: JobSpec, found: Sequence[Violation] = ()) -> list[Violation]:
    """Everything that is wrong with a spec, as far as it can be said without the data sets.

    Args:
        spec: Completed or not.
        found: What reading the job file has found wrong already. It is part of the answer, and nothing more is said
            about the same fields, nor about what rests on them.

    Returns:
        All violations in the order of the contract's fields.
    """
    declared = [violation for violation in _declared(spec) if not _touched(violation.field, found)]
    said = [*found, *declared]
    certain = (f for f in _findings(spec) if not any(_touched(path, said) for path in (f.field, *f.reads)))
    between = [Violation(finding.field, finding.message) for finding in certain]
    return sorted([*said, *between], key=lambda violation: order(violation.field))


def _findings(spec: JobSpec) -> Iterator[Finding]:
    """What the rules between fields find; nothing in a spec whose lists are longer than they may be."""
    if any(is_too_long(message, field) for message, field, _ in walk(spec)):
        return
    completed = complete(spec)
    for rule in RULES:
        yield from rule(completed)


def _touched(path: str, said: Sequence[Violation]) -> bool:
    return any(overlap(path, violation.field) for violation in said)


def _declared(spec: JobSpec) -> Iterator[Violation]:
    """The violations of the constraints that stand beside the fields in the contract."""
    for message, field, path in walk(spec):
        constraint = constraint_of(field)
        if not is_given(message, field):
            if constraint.required:
                words = "" if field.message_type is not None else f"; {allowed(field)}"
                yield Violation(path, f"has to be given{words}")
        elif field.is_repeated:
            yield from _repeated(message, field, path, constraint)
        elif field.message_type is None:
            yield from _element(field, getattr(message, field.name), path, constraint)


def _repeated(message: Message, field: FieldDescriptor, path: str, constraint: Constraint) -> Iterator[Violation]:
    elements = getattr(message, field.name)
    least, most = constraint.minimum_items, constraint.maximum_items
    if len(elements) < least:
        yield Violation(path, f"got {len(elements)} elements; allowed: at least {least}")
    elif is_too_long(message, field):
        yield Violation(path, f"got {len(elements)} elements; allowed: at most {most}")
    elif field.message_type is None and not _is_free(field, constraint):
        for index, element in enumerate(elements):
            yield from _element(field, element, f"{path}[{index}]", constraint)


def _element(field: FieldDescriptor, value: Any, path: str, constraint: Constraint) -> Iterator[Violation]:
    if field.enum_type is not None:
        fits = value in field.enum_type.values_by_number and value != 0
    elif isinstance(value, str):
        fits = not constraint.pattern or re.fullmatch(constraint.pattern, value) is not None
    else:
        fits = _in_range(constraint, value)
    if not fits:
        got = shown(value) if field.enum_type is None else name_of(field.enum_type, value)
        yield Violation(path, f"got {got}; {allowed(field)}")


def _is_free(field: FieldDescriptor, constraint: Constraint) -> bool:
    """Whether any number of the field's type will do: a list of a million need not be looked through."""
    bounds = {"minimum", "maximum", "above", "below"}
    return field.cpp_type in INTEGERS and bounds.isdisjoint(bound.name for bound, _ in constraint.ListFields())


def _in_range(constraint: Constraint, number: float) -> bool:
    """Whether a number is finite and within every bound that is declared."""
    return (
        math.isfinite(number)
        and not (constraint.HasField("minimum") and number < constraint.minimum)
        and not (constraint.HasField("maximum") and number > constraint.maximum)
        and not (constraint.HasField("above") and number <= constraint.above)
        and not (constraint.HasField("below") and number >= constraint.below)
    )
