"""What a rule between fields answers with."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from nablad.v1.job_spec_pb2 import JobSpec

__all__ = ["Finding", "Rule"]


class Finding(NamedTuple):
    """A broken rule.

    Attributes:
        field: Path of the field that is to be changed.
        message: What came and what is allowed.
        reads: Paths of the other fields that the rule rests on. Where one of them is wrong itself, the finding says
            nothing that is sure.
    """

    field: str
    message: str
    reads: tuple[str, ...] = ()


Rule: TypeAlias = Callable[[JobSpec], Iterator[Finding]]
"""Given a completed spec, says where it breaks the rule."""
