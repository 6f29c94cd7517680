"""Queries to Ray about its nodes, processes and free resources; the private parts of Ray stand at the end.

A query may take a while, so a caller with an event loop runs it on another thread.
"""

from functools import partial
from typing import Any

import ray
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from nablad.v1 import cluster_pb2 as cluster_pb
from service.cluster.listeners import require_head

__all__ = ["core_processes", "free_resources", "list_ray_nodes", "own_node", "own_node_id", "require_ray_head"]


def own_node_id() -> str:
    """Returns the id of the node that this process is on."""
    node: str = ray.get_runtime_context().get_node_id()
    return node


def own_node() -> dict[str, Any]:
    """Returns Ray's entry of the node that this process is on."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    own = own_node_id()
    return next(node for node in nodes if node["NodeID"] == own)


def list_ray_nodes() -> list[cluster_pb.Node]:
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


# -- private parts of Ray, each with the reason: check these first when Ray is updated ---------------------------------


def require_ray_head(address: str) -> None:
    """Checks that a head of Ray answers at an address, because `ray.init` would wait for one for minutes.

    Raises:
        ClusterError: No head answers, or it rejects this process.
    """
    # The channel carries the token and the certificates that Ray would use.
    with init_grpc_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        head: Any = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)  # type: ignore[no-untyped-call]
        request = gcs_service_pb2.GetClusterIdRequest()  # type: ignore[attr-defined]
        require_head(address, partial(head.GetClusterId, request))


def core_processes() -> dict[int, str]:
    """Returns the names, by process id, of the processes without which an embedded Ray is lost.

    Ray's public functions name its nodes only, and hang if these processes are gone.
    """
    node: Any = ray._private.worker._global_node
    own: dict[str, Any] = node.all_processes
    return {info.process.pid: name for name in ("gcs_server", "raylet") for info in own.get(name, [])}


def free_resources() -> dict[str, dict[str, float]]:
    """Returns the free resources by node and name, because Ray's public functions return sums over all nodes."""
    free: dict[str, dict[str, float]] = ray._private.state.available_resources_per_node()  # type: ignore[no-untyped-call]
    return free
