"""A parameter server from an assignment: its state machine behind a gRPC server of its own."""

import os
import sys
import time
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from service.parameter_server.coordinator import Coordinator
from service.parameter_server.engine import PATIENCE_SECONDS
from service.parameter_server.progress.advice import advice
from service.parameter_server.progress.stopping import stopping_rules
from service.parameter_server.scheduling.policies import SchedulingPolicy, policy_of
from service.parameter_server.servicer import ParameterServerServicer
from service.parameter_server.shard.shard import Shard
from service.parameter_server.shard.step_core import StepCore
from service.parameter_server.start import first_snapshot, place_in_shared_memory
from service.parameter_server.transport.acceptor import Acceptor
from service.rpc.descriptors import connection_options
from service.rpc.interceptors import RejectUnimplemented, RejectUnreadable
from workers import from_spec
from workers.from_spec import spec_digest
from workers.mathematics.parameters import ParameterLayout
from workers.native.library import missing_reason
from workers.runtime.failpoints import failpoint
from workers.transport.run_memory import BELL_BYTES, CONTROL_BYTES, RunMemory
from workers.transport.session import channel_options

__all__ = ["RunningParameterServer", "start_parameter_server"]

# Longest time, in seconds, that another thread holds the interpreter while the thread of the steps waits for it;
# Python's 5 ms are several steps.
_SWITCH_SECONDS = 0.0005
# Most results of one step that a worker has in shared memory; with more parts, steps are made in Python.
_MOST_SLOTS = 64


class StepCoreError(ValueError):
    """The spec insists on the native step core, and it is impossible."""


@dataclass(frozen=True)
class RunningParameterServer:
    """The parameter server of an attempt at work.

    Attributes:
        address: host:port.
    """

    address: str
    _server: grpc.aio.Server
    _servicer: ParameterServerServicer

    async def wait(self) -> None:
        """Waits until it is stopped."""
        await self._server.wait_for_termination()

    async def stop(self) -> None:
        """Ends all calls, and closes all connections."""
        await self._server.stop(None)
        await self._servicer.close()


async def start_parameter_server(
    assignment: ps_pb.Assignment, secret: str, host: str, patience_seconds: float = PATIENCE_SECONDS
) -> RunningParameterServer:
    """Starts the parameter server of an attempt in the running event loop.

    Args:
        assignment: Assignment of the attempt.
        secret: Secret of the job; calls without it are rejected.
        host: Address to listen on; ports are free ones.
        patience_seconds: Time that a worker with tickets may be silent.

    Raises:
        CheckpointError: The checkpoint that the attempt begins with cannot be used.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    spec = assignment.spec
    policy = policy_of(spec)
    placed = place_in_shared_memory(first_snapshot(assignment), spec.distribution.transport, policy.weight_buffers)
    start = placed.snapshot
    optimizer, rules = from_spec.update_rule(spec), stopping_rules(assignment)
    layer_starts = ParameterLayout(tuple(spec.model.layers), spec.model.bias).starts
    shard = Shard(optimizer, start, layer_starts, keep_best=rules.keep_best, versions=placed.versions)
    coordinator = Coordinator(
        from_spec.plan(assignment),
        policy,
        shard,
        optimizer.learning_rate,
        start.state,
        rules,
        attempt=assignment.attempt,
        labelled=assignment.train.dataset.classes > 0,
        advice=advice(assignment),
        clock=time.perf_counter,
    )
    core, run_memory, obstacle = _step_core(assignment, shard, policy, shared=placed.memory is not None)
    slots = min(spec.distribution.micro_batches, _MOST_SLOTS) if core else 1
    acceptor = Acceptor(_transport(spec), host, placed.versions, placed.memory, shard.buffers, run_memory, slots)
    description = _description(assignment)
    servicer = ParameterServerServicer(
        assignment, secret, coordinator, acceptor, description, patience_seconds, core, obstacle
    )
    options = (*channel_options(from_spec.message_bytes(assignment)), *connection_options())
    server = grpc.aio.server(interceptors=[RejectUnreadable(), RejectUnimplemented()], options=options)
    ps_grpc.add_ParameterServerServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"{host}:0")
    await server.start()
    if assignment.HasField("start"):
        failpoint("ps.resumed")
    return RunningParameterServer(f"{host}:{port}", server, servicer)


def _transport(spec: spec_pb.JobSpec) -> spec_pb.Transport.ValueType:
    """Returns the transport of the spec; a worker that cannot make steps in C must not come inline if it has to."""
    distribution = spec.distribution
    return spec_pb.TRANSPORT_SHARED if distribution.step_core == spec_pb.STEP_CORE_NATIVE else distribution.transport


def _step_core(
    assignment: ps_pb.Assignment, shard: Shard, policy: SchedulingPolicy, *, shared: bool
) -> tuple[StepCore | None, RunMemory | None, str]:
    """Returns the native step core and the memory of its runs, where both can be and are wanted; or else the reason.

    Raises:
        StepCoreError: The spec insists on it, and it cannot be.
    """
    distribution = assignment.spec.distribution
    wanted = distribution.step_core
    if wanted == spec_pb.STEP_CORE_PYTHON:
        return None, None, "distribution.step_core is python"
    if distribution.transport == spec_pb.TRANSPORT_INLINE:
        return None, None, "distribution.transport is inline"
    reason = missing_reason() if shared else "the parameter server's system has no memory that can be shared"
    if not policy.allows_runs:
        reason = "distribution.policy is not sync"
    if not reason:
        try:
            memory = RunMemory.create()
        except OSError as error:
            reason = f"this system has no more memory that can be shared: {error}"
        else:
            control, bell = memory.control.vector(np.uint8, CONTROL_BYTES), memory.bell.vector(np.uint8, BELL_BYTES)
            return StepCore(shard, control, bell, threads=len(os.sched_getaffinity(0))), memory, ""
    if wanted == spec_pb.STEP_CORE_NATIVE:
        raise StepCoreError(f"distribution.step_core: native is impossible here: {reason}")
    return None, None, reason


def _description(assignment: ps_pb.Assignment) -> dict[str, Any]:
    """Returns the description of the attempt, for its checkpoints."""
    return {
        "job_id": assignment.job_id,
        "attempt": assignment.attempt,
        "spec_sha256": spec_digest(assignment),
    }
