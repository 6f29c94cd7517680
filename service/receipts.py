"""Receipts: what the result of a job can be traced to."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from nablad.spec import name_of
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb

__all__ = ["make_receipt", "spec_digest"]


def spec_digest(assignment: ps_pb.Assignment) -> str:
    """SHA-256, in hexadecimal, of the parts of the spec that decide the weights, and of the data sets' digests.

    Names, priority, limits, checkpoints, workers and transport decide nothing. Of a warm start counts that it is one:
    which weights it begins with is the receipt's ``first_weights_sha256``, and where they came from decides nothing.
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
        "policy": name_of(spec_pb.Policy.DESCRIPTOR, spec.distribution.policy),
    }
    # JSON with sorted keys: protobuf's own bytes may be another order of the same fields in another release of it.
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def make_receipt(
    assignment: ps_pb.Assignment,
    known: jobs_pb.Receipt | None,
    *,
    code_version: str,
    epoch_weights_sha256: Sequence[str],
    final_weights_sha256: str,
    steps: int,
    ending: str,
) -> jobs_pb.Receipt:
    """The receipt of a job whose training has ended.

    Args:
        assignment: Of its last attempt.
        known: What its parameter servers told along the way: arithmetics, and the digest of the first weights.
        code_version: Of nablad.
        epoch_weights_sha256: Of the weights after each epoch, the first epoch first.
        final_weights_sha256: Of the weights in the model.
        steps: Updates of the weights in all.
        ending: Why it ended, as a sentence.
    """
    known = known or jobs_pb.Receipt()
    return jobs_pb.Receipt(
        job_id=assignment.job_id,
        spec_sha256=spec_digest(assignment),
        train_sha256=assignment.train.dataset.sha256,
        validation_sha256=assignment.validation.dataset.sha256,
        code_version=code_version,
        arithmetics=known.arithmetics,
        first_weights_sha256=known.first_weights_sha256,
        epoch_weights_sha256=epoch_weights_sha256,
        steps=steps,
        final_weights_sha256=final_weights_sha256,
        ending=ending,
        attempts=assignment.attempt,
    )


def _as_dict(message: Message) -> dict[str, Any]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)
