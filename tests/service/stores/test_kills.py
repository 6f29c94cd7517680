"""A service that is killed while it makes a job."""

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from service.stores.database import Database
from service.stores.jobs import JobStore

NOW = datetime(2026, 1, 2, tzinfo=UTC)

KILLED = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from nablad.v1 import job_spec_pb2 as spec_pb
from service.stores.database import Database
from service.stores.jobs import JobStore
jobs = JobStore(Database(Path(sys.argv[1])), lambda: datetime.now(UTC))
jobs.create(spec_pb.JobSpec(name="a"), "request")
"""


@pytest.mark.parametrize(("moment", "made"), [("job.committing", False), ("job.committed", True)])
def test_a_job_is_there_whole_or_not_at_all(tmp_path: Path, moment: str, made: bool) -> None:
    """Before COMMIT nothing of it is; after it all. The request asked again gives one job in either case."""
    path = tmp_path / "nablad.sqlite3"
    environment = os.environ | {"NABLAD_FAILPOINTS": f"{moment}=kill"}
    command = [sys.executable, "-c", KILLED, str(path)]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    database = Database(path)
    jobs = JobStore(database, lambda: NOW)
    assert len(jobs.ids()) == made
    job = jobs.create(spec_pb.JobSpec(name="a"), "request")
    assert jobs.ids() == [job.job_id]
    assert len(jobs.events(job.job_id, 1)) == 1
    database.close()
