"""Placement groups: how the CPUs of a job are reserved in Ray, one group for each worker."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from service.cluster.ray.queries import free_resources, list_ray_nodes

__all__ = ["log_failure", "node_of", "place_groups", "remove_groups", "wait_until_free"]

_log = logging.getLogger(__name__)

# Longest time in which placement groups get their CPUs.
_PLACING_SECONDS: Final = 10.0
# Longest time in which released CPUs become free, and the interval between two checks.
_FREEING_SECONDS: Final = 5.0
_FREEING_CHECK_SECONDS: Final = 0.01


def place_groups(count: int, cpus: int) -> list[PlacementGroup]:
    """Makes groups that have their CPUs, one for each worker; returns no group if there are too few free CPUs.

    Ray loses the CPUs of a placement group that is removed while it gets them (ray#64693). So groups are made only
    when the CPUs are free, and are removed only when they have them or have waited until the deadline.
    """
    if sum(node.free_cpus // cpus for node in list_ray_nodes()) < count:
        return []
    deadline = time.monotonic() + _PLACING_SECONDS
    groups = [placement_group([{"CPU": cpus}]) for _ in range(count)]
    if all([group.wait(max(deadline - time.monotonic(), 0)) for group in groups]):  # noqa: C419 (each has to wait)
        return groups
    remove_groups(groups)
    return []


def remove_groups(groups: Sequence[PlacementGroup]) -> None:
    """Removes groups and so releases their CPUs; errors of Ray are logged."""
    for group in groups:
        log_failure(remove_placement_group, group)


def wait_until_free(groups: Sequence[PlacementGroup]) -> None:
    """Waits until the CPUs of removed groups are free again.

    Ray reports a group as removed before its CPUs are free on the nodes.
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


def log_failure(clean_up: Callable[[Any], None], target: Any) -> None:
    """Calls a function that cleans up in Ray; its errors are logged and not raised."""
    try:
        clean_up(target)
    except (ray.exceptions.RayError, ValueError, RuntimeError) as error:
        _log.warning("Ray did not clean up: %s", error)
