"""The calls of the client, against a real gRPC server."""

import threading

import grpc
import pytest

import nablad
from nablad import Client, InvalidRequestError, NablaError, UnavailableError, Violation
from nablad.v1 import datasets_pb2, job_spec_pb2, jobs_pb2, models_pb2


def test_address_comes_from_the_argument_then_the_environment_then_the_default(monkeypatch):
    """The address given wins over NABLA_SERVER, which wins over this machine's usual one."""
    monkeypatch.setenv("NABLA_SERVER", "elsewhere:1")
    assert [Client("here:2").address, Client().address] == ["here:2", "elsewhere:1"]
    monkeypatch.delenv("NABLA_SERVER")
    assert Client().address == "127.0.0.1:7471"


def test_submit_sends_a_fresh_request_id_each_time_unless_one_is_given(client, service):
    """Two submissions are two jobs, and a repeated one is not, by their request ids."""
    service.handlers["CreateJob"] = lambda request, _: jobs_pb2.CreateJobResponse(job=jobs_pb2.Job(spec=request.spec))
    spec = job_spec_pb2.JobSpec(name="digits")
    assert client.submit(spec).spec == spec
    client.submit(spec)
    client.submit(spec, request_id="mine")
    ids = [request.request_id for request in service.requests("CreateJob")]
    assert len(set(ids[:2])) == 2
    assert min(map(len, ids[:2])) == 36
    assert ids[2] == "mine"


def test_lists_walk_all_pages_with_the_tokens_of_the_service(client, service):
    """A list yields every item of every page, in order, and asks with the filter each time."""

    def page(request, _):
        start = int(request.page_token or 0)
        jobs = [jobs_pb2.Job(job_id=str(number)) for number in range(start, start + 2)]
        return jobs_pb2.ListJobsResponse(jobs=jobs, next_page_token=str(start + 2) if start < 4 else "")

    service.handlers["ListJobs"] = page
    assert [job.job_id for job in client.jobs([jobs_pb2.JOB_STATE_QUEUED])] == list("012345")
    assert [list(request.states) for request in service.requests("ListJobs")] == [[jobs_pb2.JOB_STATE_QUEUED]] * 3


@pytest.mark.parametrize(
    ("steps", "kind"), [(False, jobs_pb2.HISTORY_KIND_EPOCHS), (True, jobs_pb2.HISTORY_KIND_STEPS)]
)
def test_a_history_is_of_epochs_or_of_steps_and_has_all_pages(client, service, steps, kind):
    """The points of every page come in order, and each page is asked for with the same kind."""

    def page(request, _):
        start = int(request.page_token or 0)
        points = [jobs_pb2.HistoryPoint(step=step) for step in range(start, start + 2)]
        return jobs_pb2.ListJobHistoryResponse(points=points, next_page_token=str(start + 2) if start < 4 else "")

    service.handlers["ListJobHistory"] = page
    assert [point.step for point in client.history("a", steps=steps)] == list(range(6))
    assert {(request.job_id, request.kind) for request in service.requests("ListJobHistory")} == {("a", kind)}


def test_a_job_can_be_had_with_what_happened_to_it(client, service):
    """One call gives the job and its recent events, in their order."""
    job, events = jobs_pb2.Job(job_id="a"), [jobs_pb2.Event(number=number) for number in (3, 9)]
    service.handlers["GetJob"] = lambda *_: jobs_pb2.GetJobResponse(job=job, recent_events=events)
    assert client.job_with_events("a") == (job, events)


def test_a_verification_has_a_request_id_like_a_submission(client, service):
    """Two verifications are two jobs, and a repeated one is not."""
    service.handlers["VerifyJob"] = lambda *_: jobs_pb2.VerifyJobResponse(job=jobs_pb2.Job(verifies="a"))
    assert client.verify("a").verifies == "a"
    client.verify("a")
    client.verify("a", request_id="mine")
    first, second, third = (request.request_id for request in service.requests("VerifyJob"))
    assert first != second
    assert third == "mine"


@pytest.mark.parametrize(
    ("call", "handler", "answer", "method", "arguments"),
    [
        ("GetJob", jobs_pb2.GetJobResponse, {"job": jobs_pb2.Job(job_id="a")}, "job", ["a"]),
        ("CancelJob", jobs_pb2.CancelJobResponse, {"job": jobs_pb2.Job(job_id="a")}, "cancel", ["a"]),
        ("PauseJob", jobs_pb2.PauseJobResponse, {"job": jobs_pb2.Job(job_id="a")}, "pause", ["a"]),
        ("ResumeJob", jobs_pb2.ResumeJobResponse, {"job": jobs_pb2.Job(job_id="a")}, "resume", ["a"]),
        ("RetryJob", jobs_pb2.RetryJobResponse, {"job": jobs_pb2.Job(job_id="a")}, "retry", ["a"]),
        ("ScaleJob", jobs_pb2.ScaleJobResponse, {"job": jobs_pb2.Job(job_id="a")}, "scale", ["a", 3]),
        ("GetReceipt", jobs_pb2.GetReceiptResponse, {"receipt": jobs_pb2.Receipt(job_id="a")}, "receipt", ["a"]),
        (
            "ListCheckpoints",
            jobs_pb2.ListCheckpointsResponse,
            {"checkpoints": [jobs_pb2.Checkpoint(step=2), jobs_pb2.Checkpoint(step=1)]},
            "checkpoints",
            ["a"],
        ),
        ("GetDataset", datasets_pb2.GetDatasetResponse, {"dataset": datasets_pb2.Dataset(name="a")}, "dataset", ["a"]),
        ("GetModel", models_pb2.GetModelResponse, {"model": models_pb2.Model(model_id="a")}, "model", ["a"]),
        ("DeleteJob", jobs_pb2.DeleteJobResponse, {}, "delete_job", ["a"]),
        ("DeleteDataset", datasets_pb2.DeleteDatasetResponse, {}, "delete_dataset", ["a"]),
        ("DeleteModel", models_pb2.DeleteModelResponse, {}, "delete_model", ["a"]),
    ],
)
def test_calls_about_one_thing_name_it_and_give_the_answer(client, service, call, handler, answer, method, arguments):
    """What is asked about reaches the service, and what it answers reaches the caller."""
    service.handlers[call] = lambda *_: handler(**answer)
    assert getattr(client, method)(*arguments) == next(iter(answer.values()), None)
    (request,) = service.requests(call)
    assert set(arguments) <= {getattr(request, field.name) for field in request.DESCRIPTOR.fields}


_ERRORS = {
    grpc.StatusCode.INVALID_ARGUMENT: "InvalidRequestError",
    grpc.StatusCode.NOT_FOUND: "NotFoundError",
    grpc.StatusCode.ALREADY_EXISTS: "AlreadyExistsError",
    grpc.StatusCode.FAILED_PRECONDITION: "ConflictError",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "TooLargeError",
    grpc.StatusCode.DATA_LOSS: "DataLossError",
    grpc.StatusCode.UNAVAILABLE: "UnavailableError",
    grpc.StatusCode.DEADLINE_EXCEEDED: "UnavailableError",
}


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_has_its_error_which_says_what_the_service_said(client, service, refuse, code):
    """Each status of gRPC arrives as the error that belongs to it, InternalError where none does, with the sentence."""
    service.handlers["GetJob"] = refuse(code, "the moon is full")
    with pytest.raises(NablaError, match="the moon is full") as caught:
        client.job("a")
    assert type(caught.value) is getattr(nablad, _ERRORS.get(code, "InternalError"))


def test_violations_arrive_in_their_order(client, service, refuse):
    """A refused spec carries every violation that the service found."""
    violations = (Violation("training.epochs", "too few"), Violation("", "and 3 more"))
    service.handlers["CreateJob"] = refuse(grpc.StatusCode.INVALID_ARGUMENT, "the spec breaks rules", violations)
    with pytest.raises(InvalidRequestError, match="the spec breaks rules") as caught:
        client.submit(job_spec_pb2.JobSpec())
    assert caught.value.violations == violations


def test_errors_without_details_are_translated_all_the_same(client, service):
    """A status that carries nothing but a code and a sentence is enough."""
    service.handlers["GetJob"] = lambda _, context: context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such form")
    with pytest.raises(InvalidRequestError, match="no such form") as caught:
        client.job("a")
    assert caught.value.violations == ()


def test_a_service_that_is_not_there_is_named_with_what_to_do(nowhere):
    """Whoever reaches nothing learns the address and how to give another."""
    with Client(nowhere) as client, pytest.raises(UnavailableError) as caught:
        client.job("a")
    assert all(part in str(caught.value) for part in (nowhere, "nablad serve", "--server", "NABLA_SERVER"))


def test_a_service_that_does_not_answer_in_time_is_given_up(service):
    """A call ends at its limit even when the service never answers."""
    over = threading.Event()
    service.handlers["GetJob"] = lambda *_: over.wait() and jobs_pb2.GetJobResponse()
    with Client(service.address, timeout_s=0.1) as client, pytest.raises(UnavailableError, match="in time"):
        client.job("a")
    over.set()


@pytest.mark.parametrize(
    ("call", "answer", "method", "least_s"),
    [
        ("PauseJob", jobs_pb2.PauseJobResponse(), "pause", 60),
        ("ListCheckpoints", jobs_pb2.ListCheckpointsResponse(), "checkpoints", 60),
        ("GetJob", jobs_pb2.GetJobResponse(), "job", 0),
    ],
)
def test_calls_that_wait_for_checkpoints_get_the_time_for_it(service, call, answer, method, least_s):
    """However short the limit of other calls: the service may take a minute to write a checkpoint."""
    remaining_s = []
    service.handlers[call] = lambda _, context: remaining_s.append(context.time_remaining()) or answer
    with Client(service.address, timeout_s=30) as client:
        getattr(client, method)("a")
    assert least_s < remaining_s[0] < least_s + 61


@pytest.mark.parametrize(
    ("call", "method", "times"),
    [
        ("GetJob", "job", 4),
        ("GetReceipt", "receipt", 4),
        ("ListCheckpoints", "checkpoints", 4),
        ("VerifyJob", "verify", 4),
        ("CancelJob", "cancel", 1),
        ("PauseJob", "pause", 1),
        ("ResumeJob", "resume", 1),
        ("RetryJob", "retry", 1),
    ],
)
def test_only_calls_that_may_be_made_twice_are_repeated(client, service, refuse, call, method, times):
    """What cannot be reached is tried again, unless a second call could do or say something else than the first."""
    service.handlers[call] = refuse(grpc.StatusCode.UNAVAILABLE, "later")
    with pytest.raises(UnavailableError):
        getattr(client, method)("a")
    assert len(service.requests(call)) == times
