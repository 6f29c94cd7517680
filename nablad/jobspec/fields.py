"""What is declared about a field, what its message holds of it, and the paths that name it."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from nablad.jobspec.names import names, one_of
from nablad.v1 import constraints_pb2
from nablad.v1.constraints_pb2 import Constraint
from nablad.v1.job_spec_pb2 import JobSpec

__all__ = [
    "INTEGERS",
    "allowed",
    "constraint_of",
    "fields_of",
    "is_given",
    "is_too_long",
    "kind_of",
    "order",
    "overlap",
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

_STEP = re.compile(r"(\w+)(?:\[(\d+)\])?", re.ASCII)


@cache
def constraint_of(field: FieldDescriptor) -> Constraint:
    """The constraint declared for a field in the contract; an empty one if there is none."""
    constraint: Constraint = field.GetOptions().Extensions[constraints_pb2.constraint]
    return constraint


def fields_of(message: Message) -> Sequence[FieldDescriptor]:
    """The fields of a message in the order of their numbers."""
    # The stubs name the descriptors of both implementations of protobuf, which have one interface.
    return _fields(cast("Descriptor", message.DESCRIPTOR))


@cache
def _fields(descriptor: Descriptor) -> Sequence[FieldDescriptor]:
    return sorted(descriptor.fields, key=lambda field: field.number)


def is_given(message: Message, field: FieldDescriptor) -> bool:
    """Whether the message holds the field. Without presence, zero and empty mean left out."""
    if field.is_repeated or not field.has_presence:
        return bool(getattr(message, field.name))
    return message.HasField(field.name)


def walk(message: Message, path: str = "") -> Iterator[tuple[Message, FieldDescriptor, str]]:
    """Every field of a message and of the messages in it, given or not: its message, itself and its path.

    What is in a list that is longer than allowed is passed over.
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
    """Whether the field is a list with more elements than are allowed."""
    most = constraint_of(field).maximum_items
    return field.is_repeated and 0 < most < len(getattr(message, field.name))


def kind_of(field: FieldDescriptor) -> str:
    """What can stand in the field (or in one of its elements), in a word or two."""
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
    """What the field (or one of its elements) may hold, for the end of a message."""
    if field.enum_type is not None:
        return one_of(names(field.enum_type))
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return f"allowed: {constraint_of(field).pattern_description or kind_of(field)}"
    return f"allowed: {value_range(field) or kind_of(field)}"


def value_range(field: FieldDescriptor) -> str:
    """The declared range of a numeric field in words, an integer's completed by what its type can hold.

    Empty if there is none.
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
    """1000000 rather than 1000000.0 or 1e+06."""
    return str(int(number)) if number == math.floor(number) else repr(number)


def overlap(path: str, other: str) -> bool:
    """Whether one of two field paths is the other or lies inside it. The empty path stands for the whole spec."""
    short, long = sorted((path, other), key=len)
    return not short or long == short or (long.startswith(short) and long[len(short)] in ".[")


def order(path: str) -> tuple[float, ...]:
    """Key that sorts field paths as the fields stand in the contract; unknown keys come after their siblings."""
    key: list[float] = []
    descriptor: Descriptor | None = JobSpec.DESCRIPTOR
    for step in path.split(".") if path else ():
        match = _STEP.fullmatch(step)
        field = descriptor.fields_by_name.get(match[1]) if descriptor and match else None
        if match is None or field is None:
            return (*key, math.inf)
        key += [field.number] if match[2] is None else [field.number, int(match[2])]
        descriptor = field.message_type
    return tuple(key)
