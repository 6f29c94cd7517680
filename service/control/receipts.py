"""Receipts: the digests of spec, data, code and weights that a job's result can be traced to."""

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path

import workers
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service import parameter_server
from service.parameter_server.scheduling.policies import policy_of
from workers.from_spec import spec_digest

__all__ = ["code_version", "make_receipt"]

_DIGITS = 12
# Folders of the sources that compute steps; their digest is part of the version.
_STEP_SOURCES = (Path(workers.__file__).parent, Path(parameter_server.__file__).parent)


@cache
def code_version() -> str:
    """Returns the release, and a short SHA-256 of the sources that compute steps: ``0.1.0+4b1d6f0c52aa``."""
    digest = hashlib.sha256()
    for root in _STEP_SOURCES:
        for file in sorted(path for path in root.rglob("*") if path.suffix in {".py", ".c", ".h"}):
            digest.update(f"{file.relative_to(root)}\0".encode())
            digest.update(file.read_bytes())
    return f"{version('nablad')}+{digest.hexdigest()[:_DIGITS]}"


def make_receipt(
    assignment: ps_pb.Assignment,
    known: jobs_pb.Receipt | None,
    *,
    code_version: str,
    epoch_weights_sha256: Sequence[str],
    final_weights_sha256: str,
    progress: jobs_pb.Progress,
    ending: str,
) -> jobs_pb.Receipt:
    """Returns the receipt of a job whose training has ended.

    Args:
        assignment: Assignment of the job's last attempt.
        known: Receipt so far, with what the parameter servers reported: arithmetics, digest of the first weights,
            step cores.
        code_version: Version of nablad's code.
        epoch_weights_sha256: SHA-256 of the weights after each epoch, the first epoch first.
        final_weights_sha256: SHA-256 of the weights in the model.
        progress: Progress at the end.
        ending: Why the training ended, as a sentence.
    """
    known = known or jobs_pb.Receipt()
    policy = policy_of(assignment.spec)
    receipt = jobs_pb.Receipt(
        job_id=assignment.job_id,
        spec_sha256=spec_digest(assignment),
        train_sha256=assignment.train.dataset.sha256,
        validation_sha256=assignment.validation.dataset.sha256,
        code_version=code_version,
        arithmetics=known.arithmetics,
        first_weights_sha256=known.first_weights_sha256,
        epoch_weights_sha256=epoch_weights_sha256,
        steps=progress.step,
        final_weights_sha256=final_weights_sha256,
        ending=ending,
        attempts=assignment.attempt,
        step_cores=known.step_cores,
        policy=assignment.spec.distribution.policy,
        promise=policy.promise,
    )
    if not policy.exact:
        receipt.dropped_micro_batches = progress.dropped_micro_batches
        receipt.dropped_samples = progress.dropped_samples
    return receipt
