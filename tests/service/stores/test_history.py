"""History and receipts of jobs: each step once."""

import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from service.errors import Reason, ServiceError
from service.stores.database import Database
from service.stores.job_states import CANCELLED
from service.stores.jobs import JobStore

EPOCHS, STEPS = jobs_pb.HISTORY_KIND_EPOCHS, jobs_pb.HISTORY_KIND_STEPS
TABLES = ("jobs", "events", "history", "receipts")


@pytest.fixture
def job_id(jobs: JobStore) -> str:
    """A queued job."""
    return jobs.create(spec_pb.JobSpec(name="a"), "").job_id


def _end(epoch: int, attempt: int = 1) -> tuple[jobs_pb.Progress, jobs_pb.HistoryPoint, str]:
    point = jobs_pb.HistoryPoint(epoch=epoch, step=10 * epoch, attempt=attempt, weights_sha256=f"{epoch}{attempt}")
    return jobs_pb.Progress(epoch=epoch), point, f"epoch {epoch}"


def test_pages_hold_every_point_once(jobs: JobStore, job_id: str) -> None:
    """In the order of the steps, whatever the size of the pages and the order of writing; kinds do not mix."""
    steps = [jobs_pb.HistoryPoint(step=step) for step in (0, 3, 1, 2, 4)]
    jobs.append_history(job_id, [_end(epoch) for epoch in range(1, 6)], steps)
    for kind, expected in ((EPOCHS, [10, 20, 30, 40, 50]), (STEPS, [0, 1, 2, 3, 4])):
        for size in (1, 2, 5, 6):
            seen: list[int] = []
            after: int | None = None
            while True:
                page, after = jobs.history(job_id, kind, after, size)
                assert len(page) <= size
                seen += [point.step for point in page]
                if after is None:
                    break
            assert seen == expected


def test_no_kind_means_epochs(jobs: JobStore, job_id: str) -> None:
    """As the contract says."""
    jobs.append_history(job_id, [_end(1)], [jobs_pb.HistoryPoint(step=1)])
    assert jobs.history(job_id, jobs_pb.HISTORY_KIND_UNSPECIFIED, None, 9) == jobs.history(job_id, EPOCHS, None, 9)


def test_what_is_done_again_is_kept_once(jobs: JobStore, job_id: str) -> None:
    """An attempt that goes on from further back replaces points, and tells its epochs again."""
    jobs.append_history(job_id, [_end(1), _end(2)], [])
    jobs.append_history(job_id, [_end(2, attempt=2)], [])
    page, _ = jobs.history(job_id, EPOCHS, None, 9)
    assert [(point.epoch, point.attempt) for point in page] == [(1, 1), (2, 2)]
    assert jobs.epoch_digests(job_id) == ["11", "22"]
    assert [event.epoch_end.epoch for event in jobs.events(job_id, 2)] == [1, 2, 2]
    assert jobs.get(job_id).progress.epoch == 2


def test_an_epoch_that_was_never_told_leaves_its_place(jobs: JobStore, job_id: str) -> None:
    """The others keep their numbers."""
    assert jobs.epoch_digests(job_id) == []
    jobs.append_history(job_id, [_end(1), _end(3)], [])
    assert jobs.epoch_digests(job_id) == ["11", "", "31"]


def test_figures_are_kept_all_or_none(jobs: JobStore, job_id: str) -> None:
    """A step that cannot be written takes the epochs of its transaction along."""
    with pytest.raises(OverflowError):
        jobs.append_history(job_id, [_end(1)], [jobs_pb.HistoryPoint(step=1 << 63)])
    assert jobs.history(job_id, EPOCHS, None, 9) == ([], None)
    assert len(jobs.events(job_id, 1)) == 1
    assert not jobs.get(job_id).HasField("progress")


def test_an_unknown_job_has_no_history(jobs: JobStore) -> None:
    """Reading and writing say so."""
    for call in (lambda: jobs.history("b", EPOCHS, None, 9), lambda: jobs.append_history("b", [_end(1)], [])):
        with pytest.raises(ServiceError) as missing:
            call()
        assert missing.value.reason == Reason.NOT_FOUND


def test_the_newest_receipt_is_kept(jobs: JobStore, job_id: str) -> None:
    """One for each job, first in parts and then complete."""
    assert jobs.receipt(job_id) is None
    for receipt in (jobs_pb.Receipt(job_id=job_id), jobs_pb.Receipt(job_id=job_id, ending="done")):
        jobs.save_receipt(receipt)
        assert jobs.receipt(job_id) == receipt


def test_all_goes_with_the_job(database: Database, jobs: JobStore, job_id: str) -> None:
    """No row of a deleted job is left."""
    jobs.append_history(job_id, [_end(1)], [jobs_pb.HistoryPoint(step=1)])
    jobs.save_receipt(jobs_pb.Receipt(job_id=job_id))
    jobs.move(job_id, CANCELLED, "test")
    jobs.delete(job_id)
    for table in TABLES:
        assert database.rows(f"SELECT count(*) FROM {table}") == [(0,)]  # noqa: S608 (our own names)


def test_what_a_crash_leaves_of_a_deleted_job_goes(database: Database, jobs: JobStore, job_id: str) -> None:
    """The job goes first, the rest piece by piece; other jobs lose nothing."""
    other = jobs.create(spec_pb.JobSpec(name="b"), "").job_id
    for each in (job_id, other):
        jobs.append_history(each, [_end(1)], [jobs_pb.HistoryPoint(step=1)])
        jobs.save_receipt(jobs_pb.Receipt(job_id=each))
    before = {table: database.rows(f"SELECT * FROM {table} WHERE job_id = ?", other) for table in TABLES}  # noqa: S608
    with database.without_cascade():
        database.rows("DELETE FROM jobs WHERE job_id = ?", job_id)
    assert database.rows("SELECT count(*) FROM events WHERE job_id = ?", job_id) == [(2,)]
    jobs.delete_orphaned_rows()
    after = {table: database.rows(f"SELECT * FROM {table}") for table in TABLES}  # noqa: S608
    assert after == before
    assert database.rows("PRAGMA foreign_keys") == [(1,)]


def test_going_back_forgets_what_came_after(jobs: JobStore, job_id: str) -> None:
    """Of epochs and of steps; what was before stays."""
    jobs.append_history(job_id, [_end(1), _end(2)], [jobs_pb.HistoryPoint(step=step) for step in (5, 10, 11, 20)])
    jobs.rewind_history(job_id, 10)
    assert [[point.step for point in jobs.history(job_id, kind, None, 9)[0]] for kind in (EPOCHS, STEPS)] == [
        [10],
        [5, 10],
    ]


def test_a_warning_is_kept_and_told_once_until_the_job_goes_back_before_it(jobs: JobStore, job_id: str) -> None:
    """An attempt that goes on from before it tells it again; until then it would warn of what has not happened."""
    warning = jobs_pb.JobWarning(kind=jobs_pb.WARNING_KIND_COST_EXPLODED, step=20, message="too high")
    other = jobs_pb.JobWarning(kind=jobs_pb.WARNING_KIND_GRADIENT_VANISHED, step=30, message="none")
    for each in (warning, warning, other):
        jobs.add_warning(job_id, each)
    assert list(jobs.get(job_id).warnings) == [warning, other]
    jobs.rewind_history(job_id, 20)
    assert list(jobs.get(job_id).warnings) == [warning]
    jobs.rewind_history(job_id, 19)
    assert list(jobs.get(job_id).warnings) == []
    jobs.add_warning(job_id, warning)
    told = [event.warning for event in jobs.events(job_id, 1) if event.WhichOneof("what") == "warning"]
    assert told == [warning.kind, other.kind, warning.kind]
