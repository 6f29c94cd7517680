"""The table of what a slow worker costs under each policy."""

from benchmarks.figures import Measurement
from benchmarks.policies import Case, Result, markdown
from benchmarks.works import PAPER_500
from nablad.jobspec import check
from nablad.v1 import job_spec_pb2 as spec_pb


def test_speeds_stand_beside_that_of_sync_with_the_same_workers() -> None:
    """Steps and applied samples each have their ratio, and the share that was dropped is said."""
    results = {
        Case(PAPER_500, True, "sync"): Result([Measurement([900.0, 100.0], [1.0, 0.5])], [5000.0], [0.0]),
        Case(PAPER_500, True, "backup"): Result([Measurement([900.0, 300.0], [1.0, 0.5])], [1000.0], [1 / 3]),
    }
    rows = [line.split("|")[1:-1] for line in markdown(results, 1).splitlines() if line.startswith("| ")][2:]
    assert [[cell.strip() for cell in row][1:] for row in rows] == [
        ["one slow", "sync", "5.00", "1.00", "100", "100–100", "1.00", "0%"],
        ["one slow", "backup", "1.00", "5.00", "300", "300–300", "3.00", "33%"],
    ]


def test_the_jobs_are_valid() -> None:
    """One micro-batch may be missing with backup."""
    sync, backup = (Case(PAPER_500, False, policy).spec() for policy in ("sync", "backup"))
    assert check(sync).violations == check(backup).violations == []
    assert check(backup).spec.distribution.policy == spec_pb.PolicySpec(
        name=spec_pb.POLICY_BACKUP, spare_micro_batches=1
    )
