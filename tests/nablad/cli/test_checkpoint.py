"""`nabla checkpoint`."""

import json

import grpc

from nablad.cli.exits import ExitCode
from nablad.v1 import jobs_pb2

NEWEST = jobs_pb2.Checkpoint(
    step=30, epoch=2, attempt=1, size_bytes=2048, sha256="ab" * 32, damage="a byte has changed"
)
BEFORE = jobs_pb2.Checkpoint(step=20, epoch=2, attempt=1, size_bytes=2048, sha256="cd" * 32)


def test_checkpoints_are_listed_with_their_state(nabla, service):
    """People see which checkpoint a job would go on from, and why not from a newer one; programs get all of it."""
    service.handlers["ListCheckpoints"] = lambda *_: jobs_pb2.ListCheckpointsResponse(checkpoints=[NEWEST, BEFORE])
    heading, newest, before, why = nabla("checkpoint", "list", "a").stdout.splitlines()
    assert heading.split() == ["STEP", "EPOCH", "ATTEMPT", "STATE", "WRITTEN", "SIZE", "SHA-256"]
    assert newest.split() == ["30", "2", "1", "damaged", "2.0", "KiB", "abababababab"]
    assert before.split() == ["20", "2", "1", "ok", "2.0", "KiB", "cdcdcdcdcdcd"]
    assert why == "The checkpoint of step 30 cannot be used: a byte has changed"
    assert [each["step"] for each in json.loads(nabla("checkpoint", "list", "a", "-o", "json").stdout)] == ["30", "20"]
    assert service.requests("ListCheckpoints")[0].job_id == "a"


def test_an_unknown_job_is_the_service_s_sentence(nabla, service, refuse):
    """A misspelt id ends with what the service says of it."""
    service.handlers["ListCheckpoints"] = refuse(grpc.StatusCode.NOT_FOUND, "there is no job a")
    result = nabla("checkpoint", "list", "a")
    assert (result.exit_code, result.stderr) == (ExitCode.REFUSED, "Error: there is no job a\n")
