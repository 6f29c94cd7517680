"""Placement groups: how the CPUs of a job are reserved in Ray, one group for each worker."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from service.cluster.ray.private import free_resources
from service.cluster.ray.queries import list_nodes

__all__ = ["node_of", "place", "remove", "try_to", "wait_until_free"]

_log = logging.getLogger(__name__)

# How long placement groups may take to get their CPUs.
_PLACING_SECONDS: Final = 10.0
# How long CPUs that were given back may take to be free, and the interval between two checks.
_FREEING_SECONDS: Final = 5.0
_FREEING_CHECK_SECONDS: Final = 0.01


def place(count: int, cpus: int) -> list[PlacementGroup]:
    """Makes groups with their CPUs, one for each worker; none when there is no room, or somebody else took it.

    Ray loses the CPUs of a placement group that is removed while they are being given out (ray#64693). So groups are
    made only when the CPUs are free, and are not removed before they have them or have waited for them in vain.
    """
    if sum(node.free_cpus // cpus for node in list_nodes()) < count:
        return []
    deadline = time.monotonic() + _PLACING_SECONDS
    groups = [placement_group([{"CPU": cpus}]) for _ in range(count)]
    if all([group.wait(max(deadline - time.monotonic(), 0)) for group in groups]):  # noqa: C419 (each has to wait)
        return groups
    remove(groups)
    return []


def remove(groups: Sequence[PlacementGroup]) -> None:
    """Gives the CPUs of groups back; what Ray refuses is logged."""
    for group in groups:
        try_to(remove_placement_group, group)


def wait_until_free(groups: Sequence[PlacementGroup]) -> None:
    """Waits until the CPUs of removed groups are free again.

    Ray says that a group is removed before the nodes have its CPUs back.
    """
    bundles = tuple(group.id.hex() for group in groups)
    deadline = time.monotonic() + _FREEING_SECONDS
    while (
        any(name.endswith(bundles) for node in free_resources().values() for name in node)
        and time.monotonic() < deadline
    ):
        time.sleep(_FREEING_CHECK_SECONDS)


def node_of(group: PlacementGroup) -> str:
    """Returns the id of the node where a group has its CPUs."""
    node: str = placement_group_table(group)["bundles_to_node_id"][0]
    return node


def try_to(function: Callable[[Any], None], thing: Any) -> None:
    """Calls a function of Ray that cleans something up; what it raises is logged."""
    try:
        function(thing)
    except (ray.exceptions.RayError, ValueError, RuntimeError) as error:
        _log.warning("Ray did not clean up: %s", error)
