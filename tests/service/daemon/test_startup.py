"""Startup of the service: the cleanup after a crash, and addresses that are in use."""

import socket
from pathlib import Path

import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import models_pb2 as models_pb
from service.daemon.startup import clean_up_after_crash, explain_unusable, native_library_notice
from service.storage.data_directory import DataDirectory
from service.stores.catalogues import ModelCatalogue
from service.stores.database import Database
from service.stores.job_states import CANCELLED, RUNNING, STARTING, SUCCEEDED
from service.stores.jobs import JobStore


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_only_files_that_are_needed_stay(tmp_path: Path, database: Database, jobs: JobStore) -> None:
    """Checkpoints of open jobs, the first one of succeeded jobs, and models that are registered or will be."""
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


def test_a_port_in_use_is_explained_in_the_system_s_words() -> None:
    """They say more than gRPC, which reports only that it failed."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert explain_unusable("127.0.0.1", port) == "Address already in use"
    assert explain_unusable("127.0.0.1", port) == ""


def test_an_unknown_name_is_explained_too() -> None:
    """Port 0 is always free."""
    assert explain_unusable("127.0.0.1", 0) == ""
    assert explain_unusable("nowhere.invalid", 7471) != ""


@pytest.mark.parametrize(
    ("reason", "notice"),
    [
        ("", "the native library is there: where workers share memory with the parameter server, steps are made in C"),
        ("no native library: gone; install it", "no native library: gone; install it. Until then short steps take "
         "longer; results are the same"),
    ],
)  # fmt: skip
def test_whether_there_is_a_native_library_is_said_with_what_it_costs(
    monkeypatch: pytest.MonkeyPatch, reason: str, notice: str
) -> None:
    """One sentence; or two, the second of which says what is lost."""
    monkeypatch.setattr("service.daemon.startup.missing_reason", lambda: reason)
    assert native_library_notice() == notice
