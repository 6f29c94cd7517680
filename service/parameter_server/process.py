"""A parameter server from an assignment: its state machine behind a gRPC server of its own."""

import time

import grpc

from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from service.boundary import RefuseUnreadable
from service.parameter_server.policies import POLICIES
from service.parameter_server.servicer import ParameterServer
from service.parameter_server.training import Training
from workers import build
from workers.worker import channel_options

__all__ = ["start_parameter_server"]


async def start_parameter_server(assignment: ps_pb.Assignment, secret: str, host: str) -> tuple[grpc.aio.Server, str]:
    """Starts the parameter server of an attempt in the running event loop.

    Args:
        assignment: What there is to do.
        secret: Calls without it are refused.
        host: The address to listen on; the port is a free one.

    Returns:
        The server, which runs until it is stopped, and its address as host:port.
    """
    spec = assignment.spec
    parameters = build.first_parameters(spec)
    training = Training(
        build.plan(assignment),
        POLICIES[spec.distribution.policy],
        build.update_rule(spec),
        parameters,
        attempt=assignment.attempt,
        learning_rate=spec.training.learning_rate,
        labelled=assignment.train.dataset.classes > 0,
        clock=time.perf_counter,
    )
    server = grpc.aio.server(
        interceptors=[RefuseUnreadable()], options=channel_options(build.message_bytes(assignment))
    )
    ps_grpc.add_ParameterServerServiceServicer_to_server(ParameterServer(assignment, secret, training), server)
    port = server.add_insecure_port(f"{host}:0")
    await server.start()
    return server, f"{host}:{port}"
