"""The time of day, which anybody may set: it decides nothing, and few ask for it."""

import ast
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import models_pb2 as models_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.folder import CheckpointFolder
from service.checkpoints.image import Snapshot, make_image
from service.stores.catalogues import ModelCatalogue
from service.stores.database import Database
from service.stores.job_states import QUEUED, RUNNING, STARTING
from service.stores.jobs import JobStore

ROOT = Path(__file__).parents[3]
# As docs/robustness.md lists them.
ASK_FOR_THE_TIME_OF_DAY = {"service/daemon/daemon.py", "service/parameter_server/progress/event_log.py"}
NAMES = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "stamp.GetCurrentTime"}


def _asks(path: Path) -> bool:
    calls = (node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    return any(ast.unparse(call) in NAMES or ast.unparse(call).endswith(".GetCurrentTime") for call in calls)


def test_only_what_is_listed_asks_for_the_time_of_day() -> None:
    """Whoever else needs a duration or a deadline has a monotonic clock; so has every client."""
    files = [path for folder in ("service", "workers", "nablad") for path in (ROOT / folder).rglob("*.py")]
    assert {str(path.relative_to(ROOT)) for path in files if _asks(path)} == ASK_FOR_THE_TIME_OF_DAY


@pytest.fixture
def leaping(database: Database) -> JobStore:
    """A store whose clock is set a day back or forth each time that somebody looks at it."""
    days: Iterator[int] = cycle((0, 1, -1, 0, -2))
    return JobStore(database, lambda: datetime(2026, 1, 2, tzinfo=UTC) + timedelta(days=next(days)))


def test_jobs_and_events_keep_their_order(leaping: JobStore) -> None:
    """Lists, pages, the queue and events go by number."""
    ids = [leaping.create(spec_pb.JobSpec(name="a"), f"request-{number}").job_id for number in range(7)]
    assert [job.job_id for job in leaping.queued_jobs()] == ids
    assert leaping.create(spec_pb.JobSpec(name="other"), "request-3").job_id == ids[3]
    for state in (STARTING, RUNNING, QUEUED):
        leaping.move(ids[2], state, "test")
    assert [job.job_id for job in leaping.queued_jobs()] == ids
    bodies, rest = leaping.page(None, 4, ())
    assert len(bodies) == 4
    assert len(leaping.page(rest, 4, ())[0]) == 3
    events = leaping.events(ids[2], 1)
    assert [event.number for event in events] == [1, 2, 3, 4]
    assert [event.state for event in events] == [QUEUED, STARTING, RUNNING, QUEUED]


def test_models_keep_their_order(database: Database) -> None:
    """The newest is the one that was made last, whatever its time says."""
    models = ModelCatalogue(database)
    for name, seconds in (("a", 3000), ("b", 1000), ("c", 2000)):
        model = models_pb.Model(model_id=name)
        model.create_time.FromSeconds(seconds)
        models.add(model)
    assert [model.model_id for model in models.page(None, 9)[0]] == ["c", "b", "a"]


def test_the_newest_checkpoint_is_the_one_of_the_latest_step(tmp_path: Path) -> None:
    """However old its file says that it is."""
    folder = CheckpointFolder(tmp_path / "job")
    for step, seconds in ((10, 3e9), (20, 1e9)):
        image = make_image(Snapshot(ps_pb.TrainingState(step=step), np.zeros(3, np.float32)), {"spec_sha256": "5" * 64})
        with folder.writing(step, 1) as writer:
            writer.write(image)
        os.utime(folder.path_of(writer.checkpoint), (seconds, seconds))
    newest, _ = folder.newest("5" * 64)
    assert newest is not None
    assert newest.step == 20
