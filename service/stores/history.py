"""The figures of jobs over time, and their receipts."""

from collections.abc import Iterable

from nablad.v1 import jobs_pb2 as jobs_pb
from service.stores.database import Database

__all__ = ["HistoryTable", "ReceiptTable"]


class HistoryTable:
    """One point for each epoch, and for each step of a sample. Writes only within a transaction of the caller's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, job_id: str, kind: jobs_pb.HistoryKind.ValueType, points: Iterable[jobs_pb.HistoryPoint]) -> None:
        """Adds points; a step that was made again, after a lost attempt, takes the place of the first time."""
        for point in points:
            self._database.rows(
                "INSERT OR REPLACE INTO history (job_id, kind, step, body) VALUES (?, ?, ?, ?)",
                *(job_id, kind, point.step, point.SerializeToString()),
            )

    def page(
        self, job_id: str, kind: jobs_pb.HistoryKind.ValueType, after_step: int | None, limit: int
    ) -> tuple[list[jobs_pb.HistoryPoint], int | None]:
        """At most `limit` points in order, after a step; and the `after_step` of the next page, if any."""
        query = "SELECT body, step FROM history WHERE job_id = ? AND kind = ? AND step > ? ORDER BY step"
        after = -1 if after_step is None else after_step
        bodies, rest = self._database.page(query, job_id, kind, after, limit=limit)
        return [jobs_pb.HistoryPoint.FromString(body) for body in bodies], rest

    def drop_after(self, job_id: str, step: int) -> None:
        """Forgets the points beyond a step."""
        self._database.rows("DELETE FROM history WHERE job_id = ? AND step > ?", job_id, step)

    def epoch_digests(self, job_id: str) -> list[str]:
        """SHA-256 of the weights after each epoch, the first epoch first; empty for one whose end was never told."""
        digests = {point.epoch: point.weights_sha256 for point in self._epochs(job_id)}
        return [digests.get(epoch, "") for epoch in range(1, max(digests, default=0) + 1)]

    def epoch_with(self, job_id: str, weights_sha256: str) -> jobs_pb.HistoryPoint | None:
        """The last epoch at whose end the weights had this digest."""
        found = [point for point in self._epochs(job_id) if point.weights_sha256 == weights_sha256]
        return found[-1] if found else None

    def _epochs(self, job_id: str) -> list[jobs_pb.HistoryPoint]:
        query = "SELECT body FROM history WHERE job_id = ? AND kind = ? ORDER BY step"
        bodies = self._database.bodies(query, job_id, jobs_pb.HISTORY_KIND_EPOCHS)
        return [jobs_pb.HistoryPoint.FromString(body) for body in bodies]


class ReceiptTable:
    """One receipt for each job, complete or as far as it is known."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, job_id: str) -> jobs_pb.Receipt | None:
        """The receipt of a job, if there is one."""
        bodies = self._database.bodies("SELECT body FROM receipts WHERE job_id = ?", job_id)
        return jobs_pb.Receipt.FromString(bodies[0]) if bodies else None

    def keep(self, receipt: jobs_pb.Receipt) -> None:
        """Adds a receipt, in place of the job's earlier one."""
        with self._database.transaction() as transaction:
            transaction.execute(
                "INSERT OR REPLACE INTO receipts (job_id, body) VALUES (?, ?)",
                (receipt.job_id, receipt.SerializeToString()),
            )
