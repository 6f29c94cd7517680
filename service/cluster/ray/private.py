"""Parts of Ray that are not public, each with the reason why it is needed: whoever updates Ray looks here first."""

from functools import partial
from typing import Any

import ray
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from service.cluster.listeners import require_head

__all__ = ["free_resources", "own_processes", "require_ray_head"]


def require_ray_head(address: str) -> None:
    """Returns if a head of Ray answers at an address: `ray.init` would wait for one for minutes.

    Raises:
        ClusterError: None does, or it refuses this process.
    """
    # With the token and the certificates that Ray would send.
    with init_grpc_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        head: Any = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)  # type: ignore[no-untyped-call]
        request = gcs_service_pb2.GetClusterIdRequest()  # type: ignore[attr-defined]
        require_head(address, partial(head.GetClusterId, request))


def own_processes() -> dict[int, str]:
    """Returns the names, by process id, of the processes of an embedded Ray without which there is no Ray.

    Public functions name the nodes only, and a watchdog that asks them waits when these processes are gone.
    """
    node: Any = ray._private.worker._global_node
    own: dict[str, Any] = node.all_processes
    return {info.process.pid: name for name in ("gcs_server", "raylet") for info in own.get(name, [])}


def free_resources() -> dict[str, dict[str, float]]:
    """Returns what is free, by node and name: Ray's public functions only know sums over all nodes."""
    free: dict[str, dict[str, float]] = ray._private.state.available_resources_per_node()  # type: ignore[no-untyped-call]
    return free
