"""A parameter server from an assignment: its state machine behind a gRPC server of its own."""

import logging
import sys
import time
from dataclasses import dataclass

import grpc
import numpy as np
from numpy.typing import NDArray

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from service.boundary import RefuseUnreadable
from service.parameter_server.engine import PATIENCE_SECONDS
from service.parameter_server.policies import POLICIES
from service.parameter_server.reception import Reception
from service.parameter_server.servicer import ParameterServer
from service.parameter_server.training import Training
from workers import build
from workers.regions import PROBE_BYTES, Region
from workers.worker import channel_options

__all__ = ["RunningParameterServer", "start_parameter_server"]

# How long the thread of the steps may have to wait for the interpreter while another thread has it; Python's 5 ms are
# several steps.
_SWITCH_SECONDS = 0.0005

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunningParameterServer:
    """The parameter server of an attempt at work.

    Attributes:
        address: host:port.
    """

    address: str
    _server: grpc.aio.Server
    _servicer: ParameterServer

    async def wait(self) -> None:
        """Returns when it is stopped."""
        await self._server.wait_for_termination()

    async def stop(self) -> None:
        """Ends all calls, and closes all lines."""
        await self._server.stop(None)
        await self._servicer.close()


async def start_parameter_server(
    assignment: ps_pb.Assignment, secret: str, host: str, patience_seconds: float = PATIENCE_SECONDS
) -> RunningParameterServer:
    """Starts the parameter server of an attempt in the running event loop.

    Args:
        assignment: What there is to do.
        secret: Calls without it are refused.
        host: The address to listen on; ports are free ones.
        patience_seconds: How long a worker that holds tickets may say nothing.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    spec = assignment.spec
    parameters, region = _first_weights(spec)
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
    reception = Reception(spec.distribution.transport, host, parameters, region, training.buffers)
    servicer = ParameterServer(assignment, secret, training, reception, patience_seconds)
    options = channel_options(build.message_bytes(assignment))
    server = grpc.aio.server(interceptors=[RefuseUnreadable()], options=options)
    ps_grpc.add_ParameterServerServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"{host}:0")
    await server.start()
    return RunningParameterServer(f"{host}:{port}", server, servicer)


def _first_weights(spec: spec_pb.JobSpec) -> tuple[NDArray[np.floating], Region | None]:
    """The weights before the first step; in a region, unless the spec does not want that or the system has none."""
    parameters = build.first_parameters(spec)
    if spec.distribution.transport == spec_pb.TRANSPORT_INLINE:
        return parameters, None
    try:
        region = Region.create("weights", max(parameters.nbytes, PROBE_BYTES), others_may_write=False)
    except OSError as error:
        _log.warning("this system has no memory that can be shared, weights and gradients go inline: %s", error)
        return parameters, None
    shared = region.vector(parameters.dtype, parameters.size)
    np.copyto(shared, parameters)
    return shared, region
