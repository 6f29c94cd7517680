"""Construction of the objects of the mathematics from an assignment's messages."""

import hashlib
import json
from typing import Any

import numpy as np
from google.protobuf import json_format
from google.protobuf.message import Message
from numpy.typing import NDArray

from nablad.files import CHUNK_BYTES
from nablad.jobspec import name_of
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from workers.mathematics.back_propagation import BackPropagation
from workers.mathematics.initialisations import initialise
from workers.mathematics.inner_terms import InnerTerm
from workers.mathematics.network import Network
from workers.mathematics.optimizers import Optimizer, optimizer
from workers.mathematics.parameters import ParameterLayout
from workers.native.tape import record_tape
from workers.plan import Plan

__all__ = [
    "back_propagation",
    "dtype",
    "first_parameters",
    "message_bytes",
    "network",
    "plan",
    "size",
    "spec_digest",
    "update_rule",
]


def dtype(spec: spec_pb.JobSpec) -> np.dtype[np.floating]:
    """Returns the type that a job computes with."""
    return np.dtype(name_of(spec_pb.DType.DESCRIPTOR, spec.model.dtype))


def network(spec: spec_pb.JobSpec) -> Network:
    """Returns the network and cost of a completed spec."""
    activations = [*spec.model.activation, spec.model.output_activation]
    return Network(
        layers=tuple(spec.model.layers),
        activations=tuple(name_of(spec_pb.Activation.DESCRIPTOR, activation) for activation in activations),
        cost=name_of(spec_pb.CostFunction.DESCRIPTOR, spec.cost.function),
        bias=spec.model.bias,
        huber_delta=spec.cost.huber_delta if spec.cost.HasField("huber_delta") else 1.0,
        inner_terms=tuple(_inner_term(term) for term in spec.cost.inner),
    )


def back_propagation(spec: spec_pb.JobSpec) -> BackPropagation:
    """Returns the back-propagation of a completed spec."""
    return BackPropagation(network(spec), dtype(spec), record_tape)


def size(spec: spec_pb.JobSpec) -> int:
    """Returns the number of weights of a job, biases included."""
    return ParameterLayout(tuple(spec.model.layers), spec.model.bias).size


def first_parameters(spec: spec_pb.JobSpec) -> NDArray[np.floating]:
    """Returns the weights before the first step, shape (size,): the same on every machine."""
    return initialise(
        ParameterLayout(tuple(spec.model.layers), spec.model.bias),
        name_of(spec_pb.Initialisation.DESCRIPTOR, spec.model.initialisation),
        spec.model.initialisation_scale,
        spec.training.seed,
        dtype(spec),
    )


def message_bytes(assignment: ps_pb.Assignment) -> int:
    """Returns the size of the largest payload of a message, in bytes: the assignment, or a chunk of weights."""
    return max(assignment.ByteSize(), CHUNK_BYTES)


def update_rule(spec: spec_pb.JobSpec) -> Optimizer:
    """Returns the optimizer of a completed spec, which gives exactly the parameters that the optimizer has."""
    rule = spec.training.optimizer
    given = {field.name: value for field, value in rule.ListFields() if field.name != "name"}
    return optimizer(name_of(spec_pb.Optimizer.DESCRIPTOR, rule.name), spec.training.learning_rate, **given)


def plan(assignment: ps_pb.Assignment) -> Plan:
    """Returns the plan of an assignment's rows."""
    spec = assignment.spec
    return Plan(
        rows=assignment.train.dataset.rows,
        batch_size=spec.training.batch_size,
        micro_batches=spec.distribution.micro_batches,
        epochs=spec.training.epochs,
        seed=spec.training.seed,
        validation_rows=assignment.validation.dataset.rows,
    )


def spec_digest(assignment: ps_pb.Assignment) -> str:
    """Returns the SHA-256, in hexadecimal, of the parts of the spec that affect the weights, and of the data's digests.

    Names, priority, limits, checkpoints, workers, transport and step core do not affect the weights. Of a warm start
    only its presence is included, because the receipt's ``first_weights_sha256`` identifies the weights that it begins
    with.
    """
    spec = assignment.spec
    training = _as_dict(spec.training)
    training["warm_start"] = bool(spec.training.warm_start.model or spec.training.warm_start.checkpoint_of)
    deciding = {
        "train": assignment.train.dataset.sha256,
        "validation": assignment.validation.dataset.sha256,
        "scaling": name_of(spec_pb.Scaling.DESCRIPTOR, spec.data.scaling),
        "model": _as_dict(spec.model),
        "cost": _as_dict(spec.cost),
        "training": training,
        "micro_batches": spec.distribution.micro_batches,
        "cpus_per_worker": spec.distribution.cpus_per_worker,
        "policy": _policy(spec.distribution.policy),
    }
    if assignment.train.dataset.rows and plan(assignment).rounds_cuts:
        deciding["cuts"] = "rounded"  # apart from checkpoints and receipts of the time before
    # JSON with sorted keys, because protobuf's own bytes may differ between its releases.
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def _policy(policy: spec_pb.PolicySpec) -> str | dict[str, Any]:
    """Returns the policy for a digest: its name alone if it has no parameters, as before there were any."""
    parameters = {field.name: value for field, value in policy.ListFields() if field.name != "name"}
    name = name_of(spec_pb.Policy.DESCRIPTOR, policy.name)
    return {"name": name, **parameters} if parameters else name


def _inner_term(term: spec_pb.InnerTerm) -> InnerTerm:
    given = {"target": term.target} if term.HasField("target") else {}
    return InnerTerm(
        layer=term.layer,
        term=name_of(spec_pb.Term.DESCRIPTOR, term.term),
        weight=term.weight,
        nodes=tuple(term.nodes),
        **given,
    )


def _as_dict(message: Message) -> dict[str, Any]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)
