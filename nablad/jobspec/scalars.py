"""One scalar of a job file as the value of one field, and back."""

import math
from decimal import Decimal, InvalidOperation
from typing import TypeAlias

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from nablad.jobspec.fields import INTEGERS, allowed, constraint_of, kind_of, value_range
from nablad.jobspec.names import name_of, shown, value_of
from nablad.jobspec.tree import Value

__all__ = ["Scalar", "read_scalar", "set_default", "write_scalar"]

Scalar: TypeAlias = bool | int | float | str

_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_AUTO = ("nablad.v1.ModelSpec.layers", "auto")  # the field whose 0 has a word, and the word


def read_scalar(field: FieldDescriptor, value: Value) -> Scalar:
    """The value that a field of this type takes for what a job file says.

    Raises:
        ValueError: It has none; the message says what came and what is allowed.
    """
    if (field.full_name, value) == _AUTO:
        return 0
    if isinstance(value, bool):
        value = "true" if value else "false"
    if not isinstance(value, str):
        raise _refusal(field, value)
    if field.enum_type is not None:
        return value_of(field.enum_type, value)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return _text(field, value)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return _bool(field, value)
    return _integer(field, value) if field.cpp_type in INTEGERS else _real(field, value)


def write_scalar(field: FieldDescriptor, value: Scalar) -> Scalar:
    """The opposite of `read_scalar`: what a job file says for a field's value."""
    if value == 0 and field.full_name == _AUTO[0]:
        return _AUTO[1]
    return value if field.enum_type is None else name_of(field.enum_type, int(value))


def set_default(message: Message, field: FieldDescriptor) -> None:
    """Sets a field to the default that the contract declares for it, if it declares one."""
    default = constraint_of(field).default
    if not default:
        return
    if field.is_repeated:
        getattr(message, field.name).append(read_scalar(field, default))
    else:
        setattr(message, field.name, read_scalar(field, default))


def _text(field: FieldDescriptor, text: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _refusal(field, text)  # half a surrogate pair, which no message can carry
    return text


def _bool(field: FieldDescriptor, text: str) -> bool:
    if text.lower() not in _BOOLS:
        raise _refusal(field, text)
    return _BOOLS[text.lower()]


def _integer(field: FieldDescriptor, text: str) -> int:
    number = _decimal(field, text)
    least, most = INTEGERS[field.cpp_type]
    # The size first: writing 1e999999999 out as an integer would take all memory.
    if not least <= number <= most:
        raise ValueError(f"got {shown(text)}; {allowed(field)}")
    if number != number.to_integral_value():
        raise _refusal(field, text)
    return int(number)


def _real(field: FieldDescriptor, text: str) -> float:
    number = float(_decimal(field, text))
    if not math.isfinite(number):
        raise _refusal(field, text)
    return number


def _decimal(field: FieldDescriptor, text: str) -> Decimal:
    """The exact finite number that is written in any of the usual ways: 100, 1_000, 3.0, 1e-3."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise _refusal(field, text) from None
    if not number.is_finite():
        raise _refusal(field, text)
    return number


def _refusal(field: FieldDescriptor, value: Value) -> ValueError:
    """For a value of another kind than the field's."""
    numeric = value_range(field)
    words = f"allowed: {kind_of(field)}, {numeric}" if numeric else allowed(field)
    return ValueError(f"got {shown(value)}; {words}")
