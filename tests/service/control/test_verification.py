"""Comparing a run with the receipt of another."""

import pytest

from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.control.verification import Verification
from service.errors import AttemptFailed
from service.stores.jobs import JobStore
from workers.from_spec import spec_digest

SPEC = spec_pb.JobSpec(name="a")


def _assignment(sha256: str = "train") -> ps_pb.Assignment:
    return ps_pb.Assignment(spec=SPEC, train=ps_pb.DataSource(dataset=datasets_pb.Dataset(name="t", sha256=sha256)))


RECEIPT = jobs_pb.Receipt(
    job_id="first",
    spec_sha256=spec_digest(_assignment()),
    train_sha256="train",
    epoch_weights_sha256=["e1", "e2"],
    steps=20,
    final_weights_sha256="e2",
)


def _end(epoch: int, sha256: str) -> ps_pb.EpochEnd:
    return ps_pb.EpochEnd(progress=jobs_pb.Progress(epoch=epoch), weights_sha256=sha256)


def test_the_same_weights_are_verified() -> None:
    """Every epoch and the last weights, and the sentence says which job."""
    verification, assignment = Verification(RECEIPT), _assignment()
    verification.prepare_assignment(assignment)
    assert assignment.last_step == 20
    verification.check_epoch(_end(1, "e1"))
    verification.check_epoch(_end(2, "e2"))
    verdict = verification.verdict(jobs_pb.Receipt(steps=20, final_weights_sha256="e2"))
    assert (
        verdict
        == "verified: the weights after each of 2 epochs, and the last ones, are those of job first, bit for bit"
    )


@pytest.mark.parametrize(("epoch", "sha256"), [(1, "other"), (3, "e3")])
def test_the_first_epoch_that_differs_is_named(epoch: int, sha256: str) -> None:
    """One with other weights, and one that the receipt does not have."""
    with pytest.raises(AttemptFailed, match=f"differ from those of job first after epoch {epoch}"):
        Verification(RECEIPT).check_epoch(_end(epoch, sha256))


@pytest.mark.parametrize(
    "last", [{"steps": 19, "final_weights_sha256": "e2"}, {"steps": 20, "final_weights_sha256": "x"}]
)
def test_other_last_weights_are_no_match(last: dict[str, object]) -> None:
    """Though every epoch was the same: the steps after the last one, or the choice of the best epoch, differ."""
    with pytest.raises(AttemptFailed, match="the last weights differ"):
        Verification(RECEIPT).verdict(jobs_pb.Receipt(**last))  # type: ignore[arg-type]


def test_other_data_are_refused_before_anything_is_computed() -> None:
    """A data set that was added again under its name, with other rows."""
    with pytest.raises(AttemptFailed, match="'t' is not the one that job first was trained with"):
        Verification(RECEIPT).prepare_assignment(_assignment("other"))


def test_a_spec_that_is_read_in_another_way_is_refused() -> None:
    """Its digest would differ."""
    receipt = jobs_pb.Receipt()
    receipt.CopyFrom(RECEIPT)
    receipt.spec_sha256 = "other"
    with pytest.raises(AttemptFailed, match="in another way"):
        Verification(receipt).prepare_assignment(_assignment())


def test_a_job_of_its_own_is_compared_with_nothing(jobs: JobStore) -> None:
    """Nothing is limited and nothing refused."""
    verification, assignment = Verification.for_job(jobs_pb.Job(), jobs), _assignment()
    verification.prepare_assignment(assignment)
    verification.check_epoch(_end(1, "anything"))
    assert assignment == _assignment()


def test_a_receipt_that_is_gone_fails_the_verification(jobs: JobStore) -> None:
    """The job was deleted meanwhile."""
    with pytest.raises(AttemptFailed, match="the receipt of job first is gone"):
        Verification.for_job(jobs_pb.Job(verifies="first"), jobs)
