"""History table and receipt table: the metrics of jobs over time, and their receipts."""

from collections.abc import Iterable

from nablad.v1 import jobs_pb2 as jobs_pb
from service.errors import DatabaseRowError
from service.stores.database import Database
from service.stores.tables import HISTORY, RECEIPTS

__all__ = ["HistoryTable", "ReceiptTable"]


class HistoryTable:
    """One point for each epoch, and for each sampled step. Writes only within a transaction of the caller."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save_points(
        self, job_id: str, kind: jobs_pb.HistoryKind.ValueType, points: Iterable[jobs_pb.HistoryPoint]
    ) -> None:
        """Adds points. The point of a step that was repeated after a lost attempt replaces the earlier one."""
        for point in points:
            row = {"job_id": job_id, "kind": kind, "step": point.step, "body": point.SerializeToString()}
            HISTORY.insert(self._database, row, replace=True)

    def page(
        self, job_id: str, kind: jobs_pb.HistoryKind.ValueType, after_step: int | None, limit: int
    ) -> tuple[list[jobs_pb.HistoryPoint], int | None]:
        """Returns at most `limit` points in order, after a step, and the `after_step` of the next page, if any.

        Raises:
            DatabaseRowError: One of them is damaged.
        """
        query = "WHERE job_id = ? AND kind = ? AND step > ? ORDER BY step"
        after = -1 if after_step is None else after_step
        rows, last = HISTORY.page(self._database, query, job_id, kind, after, limit=limit)
        points = [jobs_pb.HistoryPoint.FromString(HISTORY.body(row)) for row in rows]
        if last is None:
            self._require_last(job_id, kind, points[-1].step if points else after)
        return points, points[-1].step if last else None

    def count(self, job_id: str) -> int:
        """Returns the number of points of both kinds."""
        ((count,),) = self._database.rows("SELECT count(*) FROM history WHERE job_id = ?", job_id)
        return int(count)

    def drop_after(self, job_id: str, step: int) -> None:
        """Deletes the points beyond a step."""
        self._database.rows("DELETE FROM history WHERE job_id = ? AND step > ?", job_id, step)

    def epoch_digests(self, job_id: str) -> list[str]:
        """Returns the SHA-256 of the weights after each epoch, in order; empty for an epoch without a point."""
        digests = {point.epoch: point.weights_sha256 for point in self._epochs(job_id)}
        return [digests.get(epoch, "") for epoch in range(1, max(digests, default=0) + 1)]

    def epoch_with_weights(self, job_id: str, weights_sha256: str) -> jobs_pb.HistoryPoint | None:
        """Returns the last epoch at whose end the weights had this digest."""
        found = [point for point in self._epochs(job_id) if point.weights_sha256 == weights_sha256]
        return found[-1] if found else None

    def _epochs(self, job_id: str) -> list[jobs_pb.HistoryPoint]:
        kind = jobs_pb.HISTORY_KIND_EPOCHS
        bodies = HISTORY.bodies(self._database, "WHERE job_id = ? AND kind = ? ORDER BY step", job_id, kind)
        points = [jobs_pb.HistoryPoint.FromString(body) for body in bodies]
        self._require_last(job_id, kind, points[-1].step if points else -1)
        return points

    def _require_last(self, job_id: str, kind: jobs_pb.HistoryKind.ValueType, step: int) -> None:
        """Raises DatabaseRowError if more points follow: a search forward ends at a key that is damaged."""
        ((last,),) = self._database.rows("SELECT max(step) FROM history WHERE job_id = ? AND kind = ?", job_id, kind)
        if last is not None and last > step:
            raise DatabaseRowError(
                f"the history of job {job_id!r} is damaged in the database behind step {step}: restore it from a "
                "backup, or train again to the same bits; `nablad check` looks through everything",
                job_id=job_id,
            )


class ReceiptTable:
    """One receipt for each job, complete or in part."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, job_id: str) -> jobs_pb.Receipt | None:
        """Returns the receipt of a job, if there is one.

        Raises:
            DatabaseRowError: The receipt is damaged.
        """
        bodies = RECEIPTS.bodies(self._database, "WHERE job_id = ?", job_id)
        return jobs_pb.Receipt.FromString(bodies[0]) if bodies else None

    def count(self, job_id: str) -> int:
        """Returns 1 if the job has a receipt, else 0."""
        return len(self._database.rows("SELECT 1 FROM receipts WHERE job_id = ?", job_id))

    def save_receipt(self, receipt: jobs_pb.Receipt) -> None:
        """Writes a receipt, in place of the job's earlier one."""
        with self._database.transaction():
            row = {"job_id": receipt.job_id, "body": receipt.SerializeToString()}
            RECEIPTS.insert(self._database, row, replace=True)
