"""Fields of the contract: the constraints declared for them, their values in a message, and broken constraints."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from nablad.errors import Violation
from nablad.jobspec.names import name_of, names, one_of, shown
from nablad.v1 import constraints_pb2
from nablad.v1.constraints_pb2 import Constraint
from nablad.v1.job_spec_pb2 import JobSpec

__all__ = [
    "INTEGERS",
    "allowed",
    "constraint_of",
    "constraint_violations",
    "fields_of",
    "is_given",
    "is_too_long",
    "kind_of",
    "value_range",
    "walk",
]

INTEGERS: Mapping[int, tuple[int, int]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
"""The least and the largest number of each integer type."""


@cache
def constraint_of(field: FieldDescriptor) -> Constraint:
    """Returns the constraint declared for a field in the contract; an empty one if there is none."""
    constraint: Constraint = field.GetOptions().Extensions[constraints_pb2.constraint]
    return constraint


def fields_of(message: Message) -> Sequence[FieldDescriptor]:
    """Returns the fields of a message in the order of their numbers."""
    # The stubs name the descriptors of both implementations of protobuf, which have one interface.
    return _fields(cast("Descriptor", message.DESCRIPTOR))


@cache
def _fields(descriptor: Descriptor) -> Sequence[FieldDescriptor]:
    return sorted(descriptor.fields, key=lambda field: field.number)


def is_given(message: Message, field: FieldDescriptor) -> bool:
    """Returns true if the message holds the field. Without presence, zero and empty mean left out."""
    if field.is_repeated or not field.has_presence:
        return bool(getattr(message, field.name))
    return message.HasField(field.name)


def walk(message: Message, path: str = "") -> Iterator[tuple[Message, FieldDescriptor, str]]:
    """Yields every field of a message and of the messages in it, given or not: its message, itself and its path.

    Elements of a list that is longer than allowed are skipped.
    """
    for field in fields_of(message):
        inner = f"{path}.{field.name}" if path else field.name
        yield message, field, inner
        if field.message_type is None or not is_given(message, field) or is_too_long(message, field):
            continue
        if field.is_repeated:
            for index, element in enumerate(getattr(message, field.name)):
                yield from walk(element, f"{inner}[{index}]")
        else:
            yield from walk(getattr(message, field.name), inner)


def is_too_long(message: Message, field: FieldDescriptor) -> bool:
    """Returns true if the field is a list with more elements than are allowed."""
    most = constraint_of(field).maximum_items
    return field.is_repeated and 0 < most < len(getattr(message, field.name))


def kind_of(field: FieldDescriptor) -> str:
    """Returns the kind of value that the field (or one of its elements) holds, in a word or two."""
    if field.cpp_type in INTEGERS:
        return "a whole number"
    kinds = {
        FieldDescriptor.CPPTYPE_DOUBLE: "a number",
        FieldDescriptor.CPPTYPE_FLOAT: "a number",
        FieldDescriptor.CPPTYPE_BOOL: "true, false",
        FieldDescriptor.CPPTYPE_STRING: "text",
    }
    return kinds[field.cpp_type]


def allowed(field: FieldDescriptor) -> str:
    """Returns the allowed values of the field (or of one of its elements), as the end of a message."""
    if field.enum_type is not None:
        return one_of(names(field.enum_type))
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return f"allowed: {constraint_of(field).pattern_description or kind_of(field)}"
    return f"allowed: {value_range(field) or kind_of(field)}"


def value_range(field: FieldDescriptor) -> str:
    """Returns the declared range of a numeric field in words; empty if there is none.

    Where an integer has no declared bound, the bound is that of its type.
    """
    constraint = constraint_of(field)
    least, most = INTEGERS.get(field.cpp_type, (None, None))
    low = constraint.minimum if constraint.HasField("minimum") else least
    high = constraint.maximum if constraint.HasField("maximum") else most
    if low is not None and high is not None and not (constraint.HasField("above") or constraint.HasField("below")):
        return f"{_plain(low)} to {_plain(high)}"
    lower = f"more than {_plain(constraint.above)}" if constraint.HasField("above") else _words("at least", low)
    upper = f"less than {_plain(constraint.below)}" if constraint.HasField("below") else _words("at most", high)
    return ", ".join(filter(None, (lower, upper)))


def _words(words: str, number: float | None) -> str:
    return "" if number is None else f"{words} {_plain(number)}"


def _plain(number: float) -> str:
    """Writes 1000000 rather than 1000000.0 or 1e+06."""
    return str(int(number)) if number == math.floor(number) else repr(number)


def constraint_violations(spec: JobSpec) -> Iterator[Violation]:
    """Yields the fields of a spec that break the constraints declared in the contract."""
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
    """Returns true if the field takes any number of its type: a list of a million then needs no loop."""
    bounds = {"minimum", "maximum", "above", "below"}
    return field.cpp_type in INTEGERS and bounds.isdisjoint(bound.name for bound, _ in constraint.ListFields())


def _in_range(constraint: Constraint, number: float) -> bool:
    """Returns true if a number is finite and within every declared bound."""
    return (
        math.isfinite(number)
        and not (constraint.HasField("minimum") and number < constraint.minimum)
        and not (constraint.HasField("maximum") and number > constraint.maximum)
        and not (constraint.HasField("above") and number <= constraint.above)
        and not (constraint.HasField("below") and number >= constraint.below)
    )
