"""Names of enum values as job files write them: ``ACTIVATION_LEAKY_RELU`` is ``leaky_relu``."""

import difflib
import json
import re
from collections.abc import Iterable

from google.protobuf.descriptor import EnumDescriptor

__all__ = ["closest", "name_of", "names", "one_of", "shown", "value_of"]

_SHOWN_CHARACTERS = 60
_BARE = re.compile(r"[+-]?[0-9.][0-9._+-]*([eE][+-]?[0-9]+)?|true|false|null", re.ASCII)


def names(enum: EnumDescriptor) -> list[str]:
    """Returns all names of an enum in alphabetical order, without the unspecified value."""
    return sorted(name_of(enum, value.number) for value in enum.values if value.number)


def name_of(enum: EnumDescriptor, number: int) -> str:
    """Returns the lowercase name of an enum's value without the enum's prefix.

    A number that this version does not know, which a newer peer may send, is its own name: ``"77"``.
    """
    value = enum.values_by_number.get(number)
    return str(number) if value is None else value.name.removeprefix(_prefix(enum)).lower()


def value_of(enum: EnumDescriptor, name: str) -> int:
    """Returns the number of the enum's value with this lowercase name.

    Raises:
        ValueError: There is none; the message says what was given, what was probably meant and what is allowed.
    """
    for value in enum.values:
        if value.number and name_of(enum, value.number) == name:
            return value.number
    allowed = names(enum)
    raise ValueError(f"got {shown(name)}; {one_of(allowed, closest(name, allowed))}")


def closest(name: str, allowed: Iterable[str]) -> str | None:
    """Returns the allowed name that a misspelt one probably means, if any."""
    if len(name) > _SHOWN_CHARACTERS:
        return None
    return next(iter(difflib.get_close_matches(name.lower(), list(allowed), n=1)), None)


def one_of(allowed: Iterable[str], meant: str | None = None) -> str:
    """Lists what is allowed, after what was probably meant: the end of a message."""
    hint = "" if meant is None else f'did you mean "{meant}"? '
    return f"{hint}allowed: {', '.join(allowed)}"


def shown(value: object) -> str:
    """Returns a given value for a message: text in quotes and cut short, numbers bare, lists and mappings by kind."""
    if isinstance(value, str):
        short = value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "…"
        return short if _BARE.fullmatch(short) else json.dumps(short).replace("\\u2026", "…")
    if isinstance(value, bool | int | float | None):
        return json.dumps(value)
    return "a list" if isinstance(value, list) else "a mapping"


def _prefix(enum: EnumDescriptor) -> str:
    """Returns the prefix of every name of the enum, from its zero value, ``…_UNSPECIFIED``."""
    return enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
