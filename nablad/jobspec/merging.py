"""Violations that several looks at a spec have found, as one list."""

from collections.abc import Sequence

from nablad.errors import Violation
from nablad.jobspec.fields import order, overlap

__all__ = ["merge"]


def merge(first: Sequence[Violation], second: Sequence[Violation]) -> list[Violation]:
    """All violations in the order of the fields; of one field only those in ``first``, if there are any."""
    new = [each for each in second if not any(overlap(each.field, known.field) for known in first)]
    return sorted([*first, *new], key=lambda violation: order(violation.field))
