"""Verification: compares a second run of a job with the receipt of the first one."""

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.errors import AttemptFailed
from service.stores.jobs import JobStore
from workers.from_spec import spec_digest

__all__ = ["Verification"]


class Verification:
    """Comparison of a job with a receipt; for a job that verifies no other, there is none and nothing is compared."""

    def __init__(self, receipt: jobs_pb.Receipt | None) -> None:
        self._receipt = receipt

    @classmethod
    def for_job(cls, job: jobs_pb.Job, jobs: JobStore) -> "Verification":
        """Returns the verification of a job.

        Raises:
            AttemptFailed: The receipt is gone.
        """
        if not job.verifies:
            return cls(None)
        receipt = jobs.receipt(job.verifies)
        if receipt is None:
            raise AttemptFailed(f"the receipt of job {job.verifies} is gone: the job was deleted")
        return cls(receipt)

    def prepare_assignment(self, assignment: ps_pb.Assignment) -> None:
        """Limits the assignment to the steps of the receipt, and checks that data and spec are the same.

        Raises:
            AttemptFailed: Data or spec differ.
        """
        if self._receipt is None:
            return
        assignment.last_step = self._receipt.steps
        for name, source in (("train", assignment.train), ("validation", assignment.validation)):
            if source.dataset.sha256 != getattr(self._receipt, f"{name}_sha256"):
                raise AttemptFailed(
                    f"the {name} data set {source.dataset.name!r} is not the one that job {self._receipt.job_id} was "
                    "trained with: add that one again under its name"
                )
        if spec_digest(assignment) != self._receipt.spec_sha256:
            raise AttemptFailed(
                f"this release reads the spec of job {self._receipt.job_id} in another way than its own"
            )

    def check_epoch(self, end: ps_pb.EpochEnd) -> None:
        """Compares the weights at the end of an epoch.

        Raises:
            AttemptFailed: They differ.
        """
        if self._receipt is None:
            return
        epoch, digests = end.progress.epoch, self._receipt.epoch_weights_sha256
        if epoch > len(digests) or digests[epoch - 1] != end.weights_sha256:
            raise AttemptFailed(
                f"the weights differ from those of job {self._receipt.job_id} after epoch {epoch}, and in none before",
                kind=jobs_pb.FAILURE_KIND_DETERMINISTIC,
            )

    def verdict(self, receipt: jobs_pb.Receipt) -> str:
        """Returns a sentence which says that nothing differs.

        Raises:
            AttemptFailed: The last weights differ, or the number of steps.
        """
        expected = self._receipt
        if expected is None:
            raise ValueError("there is nothing to compare with")
        if (receipt.steps, receipt.final_weights_sha256) != (expected.steps, expected.final_weights_sha256):
            raise AttemptFailed(
                f"the last weights differ from those of job {expected.job_id}, and in no epoch before: after "
                f"{receipt.steps} steps here, {expected.steps} there",
                kind=jobs_pb.FAILURE_KIND_DETERMINISTIC,
            )
        epochs = len(expected.epoch_weights_sha256)
        what = "the last weights" if not epochs else f"the weights after each of {epochs} epochs, and the last ones,"
        return f"verified: {what} are those of job {expected.job_id}, bit for bit"
