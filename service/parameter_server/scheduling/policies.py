"""Policies: how far steps may run ahead of each other, which results count, and when a step is complete."""

from collections.abc import Mapping
from typing import Protocol

from nablad.v1 import job_spec_pb2 as spec_pb

__all__ = ["POLICIES", "SchedulingPolicy", "SyncPolicy"]


class SchedulingPolicy(Protocol):
    """Rules of a step. Steps are always applied in their order."""

    def may_open(self, step: int, version: int) -> bool:
        """Returns whether the tickets of `step` may go out while the weights have seen `version` updates."""

    def accepts(self, result_version: int, version: int) -> bool:
        """Returns whether a result of weights of `result_version` counts while their version is `version`."""

    def is_complete(self, results: int, parts: int) -> bool:
        """Returns whether a step of so many parts may be applied with so many results."""


class SyncPolicy:
    """Each step waits for all results of the one before: the result is that of one process."""

    def may_open(self, step: int, version: int) -> bool:
        """Returns whether every earlier step is applied."""
        return step == version

    def accepts(self, result_version: int, version: int) -> bool:
        """Returns whether the result is of the present weights."""
        return result_version == version

    def is_complete(self, results: int, parts: int) -> bool:
        """Returns whether all results are in."""
        return results == parts


POLICIES: Mapping[spec_pb.Policy.ValueType, SchedulingPolicy] = {spec_pb.POLICY_SYNC: SyncPolicy()}
"""Every policy, by its number in a spec."""
