"""What a crash near the end of a job leaves, and the next start removes."""

from pathlib import Path

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import models_pb2 as models_pb
from service.daemon.cleanup import clean_up_after_crash
from service.storage.data_directory import DataDirectory
from service.stores.catalogues import ModelCatalogue
from service.stores.database import Database
from service.stores.job_states import CANCELLED, RUNNING, STARTING, SUCCEEDED
from service.stores.jobs import JobStore


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_only_what_somebody_needs_stays(tmp_path: Path, database: Database, jobs: JobStore) -> None:
    """Checkpoints of jobs that go on, the first one of jobs that succeeded, and models that are known or will be."""
    directory, models = DataDirectory(tmp_path / "data"), ModelCatalogue(database)
    running, succeeded, cancelled = (jobs.create(spec_pb.JobSpec(name="a"), "").job_id for _ in range(3))
    for job_id in (running, succeeded):
        jobs.move(job_id, STARTING, "test")
        jobs.move(job_id, RUNNING, "test")
    jobs.move(succeeded, SUCCEEDED, "test", model_id=succeeded)
    jobs.move(cancelled, CANCELLED, "test")
    models.add(models_pb.Model(model_id=succeeded))
    for job_id in (running, succeeded, "unknown"):
        directory.checkpoints(job_id).mkdir()
        for step in (0, 7):
            (directory.checkpoints(job_id) / f"{step:012}-000001.safetensors").touch()
    for model_id in (running, succeeded, cancelled, "unknown"):
        directory.model(model_id).touch()
    clean_up_after_crash(directory, jobs, models)
    assert _files(directory.path / "checkpoints") == {
        f"{running}/000000000000-000001.safetensors",
        f"{running}/000000000007-000001.safetensors",
        f"{succeeded}/000000000000-000001.safetensors",
    }
    assert _files(directory.path / "models") == {f"{running}.safetensors", f"{succeeded}.safetensors"}
    directory.close()
