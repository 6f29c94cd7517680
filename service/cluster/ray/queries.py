"""Questions to Ray about its nodes. They may take a while: a caller with an event loop asks on another thread."""

from typing import Any

import ray

from nablad.v1 import cluster_pb2 as cluster_pb
from service.cluster.ray.private import free_resources

__all__ = ["list_nodes", "own_node", "own_node_id"]


def own_node_id() -> str:
    """Returns the id of the node that this process is on."""
    node: str = ray.get_runtime_context().get_node_id()
    return node


def own_node() -> dict[str, Any]:
    """Returns what Ray says of the node that this process is on."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    own = own_node_id()
    return next(node for node in nodes if node["NodeID"] == own)


def list_nodes() -> list[cluster_pb.Node]:
    """Returns the nodes that are alive, with their CPUs."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    free = free_resources()
    return [
        cluster_pb.Node(
            cpus=int(node["Resources"].get("CPU", 0)), free_cpus=int(free.get(node["NodeID"], {}).get("CPU", 0))
        )
        for node in nodes
        if node["Alive"]
    ]
