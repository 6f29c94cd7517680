"""The queue: priority, then age, and nothing read that it does not need."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from nablad.v1 import job_spec_pb2 as spec_pb
from service.stores.database import Database
from service.stores.job_states import CANCELLED, PAUSED, QUEUED, RUNNING, STARTING
from service.stores.jobs import JobStore, QueuedJob


def _spec(priority: int = 0, workers: int = 1, cpus_per_worker: int = 1) -> spec_pb.JobSpec:
    distribution = spec_pb.DistributionSpec(workers=workers, cpus_per_worker=cpus_per_worker)
    return spec_pb.JobSpec(name="a", priority=priority, distribution=distribution)


def test_the_highest_priority_is_first_and_the_oldest_among_equals(jobs: JobStore) -> None:
    """Whatever order they came in; negative priorities come last."""
    priorities = [0, 5, -3, 5, 0, 1000, -1000, 0]
    made = [(jobs.create(_spec(priority), "").job_id, priority) for priority in priorities]
    expected = sorted(made, key=lambda job: -job[1])  # sorting keeps the order of equals
    assert [(job.job_id, job.priority) for job in jobs.queued_jobs()] == expected


def test_only_queued_jobs_wait(jobs: JobStore) -> None:
    """Those that left the queue are not in it, and those that came back are where they were."""
    first, second, third = (jobs.create(_spec(), "").job_id for _ in range(3))
    jobs.move(first, STARTING, "test")
    jobs.move(second, CANCELLED, "test")
    jobs.move(third, PAUSED, "test")
    assert jobs.queued_jobs() == []
    for job_id, states in ((third, [QUEUED]), (first, [RUNNING, QUEUED])):
        for state in states:
            jobs.move(job_id, state, "test")
    assert [job.job_id for job in jobs.queued_jobs()] == [first, third]


def test_it_tells_what_a_job_asks_for(database: Database) -> None:
    """As submitted, as scaled, until when it waits for another attempt, and since when it is queued."""
    now = datetime(2026, 1, 2, tzinfo=UTC)
    jobs = JobStore(database, lambda: now)
    job_id = jobs.create(_spec(7, workers=2, cpus_per_worker=4), "").job_id
    waiting = QueuedJob(job_id, 1, 7, 2, 4, 0.0, queued_time=now.timestamp())
    assert jobs.queued_jobs() == [waiting]
    now += timedelta(seconds=1)
    jobs.set_workers(job_id, 3, "3 workers")
    assert jobs.queued_jobs() == [waiting._replace(workers=3)]
    jobs.move(job_id, STARTING, "test")
    now += timedelta(seconds=1.5)
    jobs.move(job_id, QUEUED, "lost", retry_time=Timestamp(seconds=1_000_000, nanos=500_000_000))
    expected = QueuedJob(job_id, 1, 7, 3, 4, 1_000_000.5, attempt=1, queued_time=now.timestamp())
    assert jobs.queued_jobs() == [expected]
    jobs.move(job_id, STARTING, "again")
    assert not jobs.get(job_id).HasField("retry_time")


def test_figures_of_the_queue_are_by_the_sign_of_the_priority(database: Database) -> None:
    """How many, and since when the one has waited that came into the queue first; not those that left it."""
    now = datetime(2026, 1, 2, tzinfo=UTC)
    jobs = JobStore(database, lambda: now)
    ids = []
    for priority in (5, 0, 1, -2, 0):
        ids.append(jobs.create(_spec(priority), "").job_id)
        now += timedelta(seconds=1)
    begin = datetime(2026, 1, 2, tzinfo=UTC).timestamp()
    assert jobs.queue_statistics() == [(-1, 1, begin + 3), (0, 2, begin + 1), (1, 2, begin)]
    jobs.move(ids[3], CANCELLED, "test")
    jobs.move(ids[0], STARTING, "test")
    jobs.move(ids[0], QUEUED, "queued anew")
    assert jobs.queue_statistics() == [(0, 2, begin + 1), (1, 2, begin + 2)]


@pytest.mark.parametrize(
    ("read", "plan"),
    [
        (JobStore.queued_jobs, ["SEARCH jobs USING COVERING INDEX jobs_in_queue (state=?)"]),
        (
            JobStore.queue_statistics,
            ["SEARCH jobs USING COVERING INDEX jobs_in_queue (state=?)", "USE TEMP B-TREE FOR GROUP BY"],
        ),
        (lambda jobs: jobs.recent_events("a", 9), ["SEARCH events USING INDEX events_of_note (job_id=?)"]),
    ],
)
def test_what_is_asked_often_is_read_from_its_index(
    database: Database, read: Callable[[JobStore], object], plan: list[str]
) -> None:
    """Without a look at the jobs, whose specs may be large, or at the events that repeat; and without sorting any."""
    asked: list[tuple[str, tuple[object, ...]]] = []
    rows = database.rows

    def listen(query: str, *parameters: object) -> list[tuple[object, ...]]:
        asked.append((query, parameters))
        return rows(query, *parameters)

    database.rows = listen  # type: ignore[method-assign]
    read(JobStore(database, lambda: NotImplemented))
    ((query, parameters),) = asked
    assert plan == [said for *_, said in rows(f"EXPLAIN QUERY PLAN {query}", *parameters)]
