"""What all commands of `nabla` share: exit codes, sentences, the server's address."""

import importlib.metadata
import subprocess
import sys

import grpc
import pytest

from nablad.cli.exits import MEANINGS, ExitCode
from nablad.v1 import jobs_pb2


def test_help_lists_every_exit_code(nabla):
    """Whoever writes a script finds all exit codes in --help."""
    shown = nabla("--help").output
    assert set(MEANINGS) == set(ExitCode)
    assert all(f"{code.value:>3}  {meaning}" in shown for code, meaning in MEANINGS.items())


def test_version_is_the_distribution_s(nabla):
    """--version says which nablad is installed."""
    assert nabla("--version").output == f"nabla {importlib.metadata.version('nablad')}\n"


@pytest.mark.parametrize(
    ("status", "exit_code"),
    [
        (grpc.StatusCode.NOT_FOUND, ExitCode.REFUSED),
        (grpc.StatusCode.INTERNAL, ExitCode.REFUSED),
        (grpc.StatusCode.FAILED_PRECONDITION, ExitCode.REFUSED),
        (grpc.StatusCode.INVALID_ARGUMENT, ExitCode.INVALID),
        (grpc.StatusCode.UNAVAILABLE, ExitCode.UNREACHABLE),
    ],
)
def test_a_refusal_is_one_sentence_on_stderr_and_an_exit_code(nabla, service, refuse, status, exit_code):
    """The service's sentence is what the user reads; nothing of it goes to stdout."""
    service.handlers["CancelJob"] = refuse(status, "the job has ended")
    result = nabla("job", "cancel", "a")
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert result.stderr.startswith("Error: ")
    assert "the job has ended" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_option_server_wins_over_the_environment(nabla, service, nowhere):
    """--server is where `nabla` goes, whatever NABLA_SERVER says."""
    service.handlers["DeleteJob"] = lambda *_: jobs_pb2.DeleteJobResponse()
    assert nabla("--server", service.address, "job", "delete", "a", address=nowhere).exit_code == ExitCode.SUCCESS
    lost = nabla("--server", nowhere, "job", "delete", "a")
    assert lost.exit_code == ExitCode.UNREACHABLE
    assert nowhere in lost.stderr


def test_wrong_usage_is_told_apart_from_refusals(nabla):
    """A misspelt option ends with the code for wrong usage."""
    assert nabla("job", "list", "--stat", "queued").exit_code == ExitCode.INVALID


def test_a_reader_that_goes_away_ends_nabla_quietly(service):
    """`nabla job list | head -1` says nothing on stderr."""
    jobs = [jobs_pb2.Job(job_id=f"{number:0500}") for number in range(400)]  # more than a pipe holds
    service.handlers["ListJobs"] = lambda *_: jobs_pb2.ListJobsResponse(jobs=jobs)
    command = [sys.executable, "-c", "from nablad.cli import main; main()", "--server", service.address, "job", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
