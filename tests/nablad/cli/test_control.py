"""`nabla job` pause, resume, retry, scale, cancel, delete."""

import json

import grpc
import pytest

from nablad.cli.control import MOST_WORKERS
from nablad.cli.exits import ExitCode
from nablad.jobspec.fields import constraint_of
from nablad.v1 import job_spec_pb2, jobs_pb2

MOVES = ["pause", "resume", "retry", "cancel"]


@pytest.fixture
def moving(service, digits_job):
    """The service moves a job as it is told."""
    for move in ("Pause", "Resume", "Retry", "Scale", "Cancel"):
        answer = getattr(jobs_pb2, f"{move}JobResponse")(job=digits_job)
        service.handlers[f"{move}Job"] = lambda *_, answer=answer: answer
    return service


@pytest.mark.parametrize("move", MOVES)
def test_each_move_asks_for_the_job_named_and_gives_it_to_programs(nabla, moving, move):
    """The right call is made about the right job, and -o json prints what it became."""
    assert json.loads(nabla("job", move, "digits-1f", "-o", "json").stdout)["job_id"] == "digits-1f"
    (request,) = moving.requests(f"{move.title()}Job")
    assert request.job_id == "digits-1f"


@pytest.mark.parametrize("move", MOVES)
def test_a_refused_move_is_the_service_s_sentence(nabla, service, refuse, move):
    """What a job's state does not allow ends with the reason and the code for refusals."""
    service.handlers[f"{move.title()}Job"] = refuse(grpc.StatusCode.FAILED_PRECONDITION, "the job has ended")
    result = nabla("job", move, "digits-1f")
    assert (result.exit_code, result.stderr) == (ExitCode.REFUSED, "Error: the job has ended\n")


def test_a_pause_says_where_the_job_stands_and_how_to_go_on(nabla, moving, service, digits_job):
    """In the service's words, which name the step, and with the command that ends the pause."""
    digits_job.reason = "paused by a client; it goes on from step 50"
    service.handlers["PauseJob"] = lambda *_: jobs_pb2.PauseJobResponse(job=digits_job)
    assert nabla("job", "pause", "digits-1f").stdout == (
        "Job digits-1f: paused by a client; it goes on from step 50. To resume it:\n  nabla job resume digits-1f\n"
    )


@pytest.mark.parametrize("move", ["resume", "retry"])
def test_a_job_queued_again_is_named_with_how_to_watch_it(nabla, moving, move):
    """Whoever lets a job go on learns how to look on, on the same service."""
    shown = nabla("--server", moving.address, "job", move, "digits-1f").stdout
    assert "Job digits-1f is queued again" in shown
    assert f"nabla --server {moving.address} job watch digits-1f" in shown


def test_a_retry_says_what_the_service_expects_of_it(nabla, service, digits_job):
    """Who tries a job again that must end the same way is told so, and it is tried all the same."""
    digits_job.reason = "tried again by a client, and will end the same way unless something changes"
    service.handlers["RetryJob"] = lambda *_: jobs_pb2.RetryJobResponse(job=digits_job)
    result = nabla("job", "retry", "digits-1f")
    assert result.exit_code == ExitCode.SUCCESS
    assert digits_job.reason in result.stdout


@pytest.mark.parametrize(("workers", "words"), [("1", "1 worker."), ("3", "3 workers.")])
def test_scaling_sends_the_number_of_workers(nabla, moving, workers, words):
    """The number reaches the service and is said back."""
    assert nabla("job", "scale", "digits-1f", workers).stdout.startswith(f"Job digits-1f continues with {words}")
    (request,) = moving.requests("ScaleJob")
    assert (request.job_id, request.workers) == ("digits-1f", int(workers))


@pytest.mark.parametrize("output", ["table", "json"])
@pytest.mark.parametrize("move", ["pause", "resume", "retry", "scale"])
def test_warnings_of_the_service_are_shown_beside_the_answer(nabla, moving, digits_job, move, output):
    """On stderr, so that what programs read stays as it is; -o json has them in the job, too."""
    warning = jobs_pb2.JobWarning(field="distribution.workers", message="1 of 3 workers has nothing to do")
    for answer in moving.handlers.values():
        answer().job.warnings.append(warning)
    result = nabla("job", move, "digits-1f", *(["3"] if move == "scale" else []), "-o", output)
    assert result.stderr == "Warning: distribution.workers: 1 of 3 workers has nothing to do.\n"
    assert output == "table" or json.loads(result.stdout)["warnings"][0]["field"] == "distribution.workers"


def test_the_workers_of_a_job_are_bounded_as_in_the_contract(nabla, moving):
    """A number that the contract does not allow costs no call."""
    constraint = constraint_of(job_spec_pb2.DistributionSpec.DESCRIPTOR.fields_by_name["workers"])
    assert (constraint.minimum, constraint.maximum) == (1, MOST_WORKERS)
    for workers in ("0", str(MOST_WORKERS + 1), "many"):
        assert nabla("job", "scale", "digits-1f", workers).exit_code == ExitCode.INVALID
    assert moving.calls == []


def test_cancel_says_what_became_of_the_job(nabla, moving, digits_job):
    """The service's reason is shown."""
    assert nabla("job", "cancel", "digits-1f").stdout == f"Job digits-1f: {digits_job.reason}\n"


def test_delete_names_the_job(nabla, service):
    """The right one is deleted."""
    service.handlers["DeleteJob"] = lambda *_: jobs_pb2.DeleteJobResponse()
    assert nabla("job", "delete", "digits-1f").stdout == "Job digits-1f is deleted.\n"
    assert service.requests("DeleteJob")[0].job_id == "digits-1f"
