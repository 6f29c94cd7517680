"""Violations of a spec: how a rule reports one, their order, and which of several at one field are kept."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from google.protobuf.descriptor import Descriptor

from nablad.errors import Violation
from nablad.v1.job_spec_pb2 import JobSpec

__all__ = ["Rule", "RuleViolation", "is_touched", "merge", "order", "overlap", "sort"]

_STEP = re.compile(r"(\w+)(?:\[(\d+)\])?", re.ASCII)


class RuleViolation(NamedTuple):
    """A broken rule between fields.

    Attributes:
        field: Path of the field to be changed.
        message: The value that was given, and the allowed ones.
        reads: Paths of the other fields that the rule reads. While one of them is wrong itself, this is not certain.
    """

    field: str
    message: str
    reads: tuple[str, ...] = ()


Rule: TypeAlias = Callable[[JobSpec], Iterator[RuleViolation]]
"""Yields the violations of one rule in a completed spec."""


def merge(first: Sequence[Violation], second: Iterable[Violation]) -> list[Violation]:
    """Returns all violations in the order of the fields; at one field only those of ``first``, if it has any there."""
    return sort([*first, *(each for each in second if not is_touched(each.field, first))])


def sort(found: Iterable[Violation]) -> list[Violation]:
    """Returns violations in the order of the contract's fields."""
    return sorted(found, key=lambda violation: order(violation.field))


def is_touched(path: str, found: Iterable[Violation]) -> bool:
    """Returns true if a violation is at this field, inside it or around it."""
    return any(overlap(path, violation.field) for violation in found)


def overlap(path: str, other: str) -> bool:
    """Returns true if one field path is the other or lies inside it. The empty path stands for the whole spec."""
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
