"""A client that knows nothing but the .proto files, and what any gRPC tool asks a service."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

ROOT = Path(__file__).parents[2]
SERVICES = ("nablad.v1.JobService", "nablad.v1.DatasetService", "nablad.v1.ModelService")

CLIENT = """
import sys, grpc
from nablad.v1 import job_spec_pb2 as spec, jobs_pb2, jobs_pb2_grpc

assert "nablad.client" not in sys.modules and jobs_pb2.__file__.startswith(sys.argv[2]), jobs_pb2.__file__
stub = jobs_pb2_grpc.JobServiceStub(grpc.insecure_channel(sys.argv[1]))
job = stub.CreateJob(jobs_pb2.CreateJobRequest(spec=spec.JobSpec(
    name="stranger",
    data=spec.DataSpec(train="digits-train", validation="digits-validation"),
    model=spec.ModelSpec(layers=[64, 10]),
    training=spec.TrainingSpec(epochs=3),
))).job
for news in stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=job.job_id)):
    for event in news.events:
        print(event.number, event.message)
print(jobs_pb2.JobState.Name(stub.GetJob(jobs_pb2.GetJobRequest(job_id=job.job_id)).job.state))
"""


@pytest.mark.happy
def test_a_client_made_from_the_contract_alone_trains(daemon: Any, digits: None, tmp_path: Path) -> None:
    """Stubs generated afresh from the .proto files submit a job and watch it to its end."""
    files = sorted((ROOT / "proto").rglob("*.proto"))
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I", ROOT / "proto", f"--python_out={tmp_path}",
         f"--grpc_python_out={tmp_path}", *files],
        check=True, timeout=60,
    )  # fmt: skip
    for package in (tmp_path / "nablad", tmp_path / "nablad" / "v1"):
        (package / "__init__.py").touch()
    (tmp_path / "client.py").write_text(CLIENT)
    ran = subprocess.run(
        [sys.executable, tmp_path / "client.py", daemon.address, tmp_path],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0].startswith("1 queued")
    assert lines[-1] == "JOB_STATE_SUCCEEDED"


@pytest.mark.happy
@pytest.mark.parametrize("service", ["", *SERVICES])
def test_health_checks_are_answered(daemon: Any, service: str) -> None:
    """The server as a whole and each service say that they serve."""
    with grpc.insecure_channel(daemon.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.happy
def test_reflection_tells_the_whole_contract(daemon: Any) -> None:
    """A tool without the .proto files finds the services, their methods and messages."""
    with grpc.insecure_channel(daemon.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(SERVICES) <= set(database.get_services())
        service = DescriptorPool(database).FindServiceByName("nablad.v1.JobService")
        assert "CreateJob" in service.methods_by_name
        assert "learning_rate" in service.file.pool.FindMessageTypeByName("nablad.v1.TrainingSpec").fields_by_name
