"""Receipts: a digest of exactly what decides the weights."""

import re
from collections.abc import Callable

import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.control.receipts import make_receipt
from workers.from_spec import spec_digest

BACKUP = spec_pb.PolicySpec(name=spec_pb.POLICY_BACKUP, spare_micro_batches=1)

Change = Callable[[ps_pb.Assignment], object]


def _assignment() -> ps_pb.Assignment:
    assignment = ps_pb.Assignment(job_id="a-1", attempt=2)
    assignment.train.dataset.sha256, assignment.validation.dataset.sha256 = "aa", "bb"
    assignment.train.dataset.name, assignment.train.directory = "t", "/data/t"
    spec = assignment.spec
    spec.name, spec.data.train, spec.data.validation = "a", "t", "v"
    spec.data.scaling = spec_pb.SCALING_UNIT
    spec.model.layers.extend([4, 3, 2])
    spec.cost.inner.add(layer=1, term=spec_pb.TERM_BALANCE, weight=0.1)
    spec.training.epochs, spec.training.learning_rate = 3, 0.1
    spec.training.warm_start.model = "m-1"
    spec.distribution.CopyFrom(spec_pb.DistributionSpec(workers=2, cpus_per_worker=1, micro_batches=2))
    spec.distribution.policy.name = spec_pb.POLICY_SYNC
    return assignment


DECIDING: dict[str, Change] = {
    "train data": lambda a: setattr(a.train.dataset, "sha256", "cc"),
    "validation data": lambda a: setattr(a.validation.dataset, "sha256", ""),
    "scaling": lambda a: setattr(a.spec.data, "scaling", spec_pb.SCALING_STANDARD),
    "model": lambda a: a.spec.model.layers.append(2),
    "presence": lambda a: setattr(a.spec.model, "bias", False),
    "cost": lambda a: setattr(a.spec.cost.inner[0], "weight", 0.1 + 2**-56),
    "training": lambda a: setattr(a.spec.training, "seed", 1),
    "stopping": lambda a: setattr(a.spec.training.stopping, "patience", 2),
    "warm start or not": lambda a: a.spec.training.ClearField("warm_start"),
    "micro-batches": lambda a: setattr(a.spec.distribution, "micro_batches", 4),
    "CPUs of a worker": lambda a: setattr(a.spec.distribution, "cpus_per_worker", 2),
    "policy": lambda a: setattr(a.spec.distribution.policy, "name", spec_pb.POLICY_BACKUP),
    "parameter of the policy": lambda a: setattr(a.spec.distribution.policy, "spare_micro_batches", 1),
}

NOT_DECIDING: dict[str, Change] = {
    "name": lambda a: setattr(a.spec, "name", "b"),
    "priority": lambda a: setattr(a.spec, "priority", 9),
    "limits": lambda a: setattr(a.spec.limits, "wall_time_seconds", 9.0),
    "checkpoints": lambda a: setattr(a.spec.checkpoints, "every_epochs", 9),
    "workers": lambda a: setattr(a.spec.distribution, "workers", 9),
    "transport": lambda a: setattr(a.spec.distribution, "transport", spec_pb.TRANSPORT_INLINE),
    "step core": lambda a: setattr(a.spec.distribution, "step_core", spec_pb.STEP_CORE_PYTHON),
    "data set names": lambda a: setattr(a.spec.data, "train", "u"),
    "where the data lie": lambda a: setattr(a.train, "directory", "/elsewhere"),
    "where the weights come from": lambda a: setattr(a.spec.training.warm_start, "checkpoint_of", "b-1"),
    "the attempt": lambda a: setattr(a, "attempt", 9),
    "the job": lambda a: setattr(a, "job_id", "b-2"),
}


@pytest.mark.parametrize("part", DECIDING)
def test_what_decides_the_weights_changes_the_digest(part: str) -> None:
    """Each part alone, a double in its last bit among them."""
    changed = _assignment()
    DECIDING[part](changed)
    assert changed != _assignment()
    assert spec_digest(changed) != spec_digest(_assignment())


@pytest.mark.parametrize("part", NOT_DECIDING)
def test_what_decides_nothing_does_not_change_it(part: str) -> None:
    """Each part alone."""
    changed = _assignment()
    NOT_DECIDING[part](changed)
    assert changed != _assignment()
    assert spec_digest(changed) == spec_digest(_assignment())


def test_every_part_of_a_spec_either_decides_or_does_not() -> None:
    """A field that is added to the contract has to be thought of here and in the digest."""
    known = {
        spec_pb.JobSpec: "name data model cost training distribution priority limits checkpoints",
        spec_pb.DataSpec: "train validation scaling",
        spec_pb.DistributionSpec: "workers cpus_per_worker micro_batches policy transport step_core",
        spec_pb.WarmStartSpec: "model checkpoint_of",
    }
    for message, fields in known.items():
        assert {field.name for field in message.DESCRIPTOR.fields} == set(fields.split())


def test_the_digest_is_the_same_in_every_release() -> None:
    """Receipts and checkpoints of earlier ones are compared with it."""
    assert re.fullmatch("39f7f84dbfdc0a9c[0-9a-f]{48}", spec_digest(_assignment()))


def test_a_receipt_puts_the_parts_together() -> None:
    """What was told along the way, what is known at the end, and the digests of spec and data: every field."""
    known = jobs_pb.Receipt(job_id="a-1", first_weights_sha256="f", step_cores=[spec_pb.STEP_CORE_NATIVE])
    known.arithmetics.add(cpu="c", blas="b", numpy="n")
    assignment = _assignment()
    assignment.spec.distribution.policy.CopyFrom(BACKUP)
    receipt = make_receipt(
        assignment,
        known,
        code_version="1",
        epoch_weights_sha256=["e1", "e2"],
        final_weights_sha256="e2",
        progress=jobs_pb.Progress(step=8, dropped_micro_batches=3, dropped_samples=12),
        ending="all 2 epochs are done",
    )
    assert {field.name for field, _ in receipt.ListFields()} == set(jobs_pb.Receipt.DESCRIPTOR.fields_by_name)
    assert receipt.spec_sha256 == spec_digest(assignment)
    assert (receipt.policy, receipt.dropped_micro_batches, receipt.dropped_samples) == (BACKUP, 3, 12)
    assert "another run ends with others" in receipt.promise
    assert (receipt.train_sha256, receipt.validation_sha256) == ("aa", "bb")
    assert (receipt.first_weights_sha256, list(receipt.arithmetics)) == ("f", list(known.arithmetics))
    assert (receipt.attempts, receipt.steps, receipt.step_cores) == (2, 8, [spec_pb.STEP_CORE_NATIVE])


def test_a_receipt_needs_nothing_from_along_the_way() -> None:
    """What nobody told stays empty."""
    receipt = make_receipt(
        _assignment(),
        None,
        code_version="1",
        epoch_weights_sha256=[],
        final_weights_sha256="e",
        progress=jobs_pb.Progress(step=8),
        ending="stopped",
    )
    assert (receipt.first_weights_sha256, list(receipt.arithmetics)) == ("", [])
    assert not receipt.HasField("dropped_micro_batches")
    assert "bit for bit" in receipt.promise
