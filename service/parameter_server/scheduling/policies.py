"""Policies: when the tickets of a step may go out."""

from collections.abc import Mapping
from typing import Protocol

from nablad.v1 import job_spec_pb2 as spec_pb

__all__ = ["POLICIES", "Policy", "Sync"]


class Policy(Protocol):
    """Decides how far the tickets may run ahead of the updates. Steps are always applied in their order."""

    def may_open(self, step: int, version: int) -> bool:
        """Whether the tickets of `step` may go out while the weights have seen `version` updates."""


class Sync:
    """A step begins when the one before it is applied: the result is that of one process."""

    def may_open(self, step: int, version: int) -> bool:
        """Whether every earlier step is applied."""
        return step == version


POLICIES: Mapping[spec_pb.Policy.ValueType, Policy] = {spec_pb.POLICY_SYNC: Sync()}
