"""Jobs whose specs are large: what is asked of many jobs does not read them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from service.stores.database import Database
from service.stores.job_states import CANCELLED, ENDED, PAUSED, TRANSITIONS
from service.stores.jobs import JobStore


def _spec(train: str, validation: str = "") -> spec_pb.JobSpec:
    return spec_pb.JobSpec(name="a", data=spec_pb.DataSpec(train=train, validation=validation))


@contextmanager
def _statements(database: Database) -> Iterator[list[str]]:
    """The statements that SQLite is given until the block ends, with their parameters."""
    said: list[str] = []
    database._connection.set_trace_callback(said.append)
    yield said
    database._connection.set_trace_callback(None)


@pytest.mark.parametrize("states", [(), tuple(TRANSITIONS.keys() - ENDED), (CANCELLED,)])
def test_a_page_is_read_in_order_and_not_sorted(database: Database, jobs: JobStore, states: tuple[int, ...]) -> None:
    """To sort jobs, SQLite would read the specs of all of them for each page."""
    for name in "abc":
        jobs.create(_spec(name), "")
    with _statements(database) as said:
        jobs.page(None, 2, states)  # type: ignore[arg-type]
    plans = [plan for query in said for *_, plan in database.rows(f"EXPLAIN QUERY PLAN {query}")]
    assert plans
    assert not [plan for plan in plans if "TEMP B-TREE" in plan]


def test_who_uses_a_data_set_is_known_without_the_specs(database: Database, jobs: JobStore) -> None:
    """Not a single job is read, whatever became of them since they were created."""
    users = {name: jobs.create(_spec(name, "v"), "").job_id for name in ("x", "y", "z")}
    jobs.move(users["x"], CANCELLED, "test")
    jobs.move(users["y"], PAUSED, "test")
    with _statements(database) as said:
        found = {name: jobs.job_using_dataset(name) for name in ("x", "y", "z", "v", "none", "")}
    assert found == {"x": None, "y": users["y"], "z": users["z"], "v": users["y"], "none": None, "": None}
    assert said
    assert not [query for query in said if "body" in query]


@pytest.mark.parametrize("learn", [JobStore.load_datasets_in_use, lambda _: None], ids=["at the start", "when asked"])
def test_who_uses_a_data_set_is_learnt_anew_after_a_restart(
    database: Database, jobs: JobStore, learn: Callable[[JobStore], None]
) -> None:
    """From the jobs that are there, once; also what is created and what ends afterwards."""
    old = jobs.create(_spec("old", "both"), "").job_id
    restarted = JobStore(database, jobs._now)
    learn(restarted)
    new = restarted.create(_spec("new", "both"), "").job_id
    assert [restarted.job_using_dataset(name) for name in ("old", "new", "both")] == [old, new, old]
    restarted.move(old, CANCELLED, "test")
    assert [restarted.job_using_dataset(name) for name in ("old", "new", "both")] == [None, new, new]
    restarted.delete(old)
    assert restarted.job_using_dataset("old") is None
