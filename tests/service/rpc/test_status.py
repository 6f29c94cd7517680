"""What clients are told when a call is refused."""

import asyncio
import base64

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st

from nablad.cli.exits import end_of
from nablad.client.translation import translate
from nablad.errors import InvalidRequestError, Violation
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import jobs_pb2_grpc as jobs_grpc
from service.errors import Reason, ServiceError
from service.rpc.error_translation import answer_errors
from service.rpc.status import status_of

_THREE = [
    Violation("training.epochs", "got 0; allowed: at least 1"),
    Violation("", "there is no data"),
    Violation("model.layers", "got 1 layer; allowed: 2 to 100"),
]


def _refused(violations: list[Violation], sentence: str = "the job spec breaks rules") -> ServiceError:
    return ServiceError(Reason.INVALID_SPEC, sentence, violations=violations)


def test_the_message_names_the_rules_that_are_broken() -> None:
    """A client that reads the message alone, such as grpcurl, learns what to mend."""
    assert status_of(_refused(_THREE)).message == (
        "the job spec breaks rules: (1) training.epochs: got 0; allowed: at least 1; (2) there is no data; "
        "(3) model.layers: got 1 layer; allowed: 2 to 100"
    )
    assert status_of(_refused(_THREE[:1])).message == (
        "the job spec breaks rules: training.epochs: got 0; allowed: at least 1"
    )
    assert status_of(_refused([])).message == "the job spec breaks rules"


def test_what_there_is_no_room_for_is_counted() -> None:
    """The first violations stand in the message as wholes, and how many more there are."""
    message = status_of(_refused([Violation(f"field{number}", "x" * 100) for number in range(40)])).message
    told = message.count("x" * 100)
    assert 1 <= told < 10
    assert message.endswith(f"; and {40 - told} more")


_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=400)


@given(_TEXTS, st.lists(st.builds(Violation, _TEXTS, _TEXTS), max_size=60))
def test_a_status_fits_into_the_headers(sentence: str, violations: list[Violation]) -> None:
    """However long and odd the texts, clients take the trailing metadata: they allow 8 KiB."""
    status = status_of(_refused(violations, sentence))
    percent_encoded = sum(1 if 32 <= byte < 127 and byte != 37 else 3 for byte in status.message.encode())
    assert percent_encoded + len(status.SerializeToString()) < 8000
    assert len(base64.b64encode(status.SerializeToString())) < 8000
    bad_request = error_details_pb2.BadRequest()
    if violations:
        status.details[1].Unpack(bad_request)
        assert bad_request.field_violations


@answer_errors
class _Jobs(jobs_grpc.JobServiceServicer):
    """Refuses every job."""

    async def CreateJob(self, request: object, context: object) -> jobs_pb.CreateJobResponse:  # type: ignore[override]  # noqa: N802
        raise _refused(_THREE)


@pytest.fixture
def answer() -> grpc.aio.AioRpcError:
    """The error that a client gets from a real server."""

    async def call() -> grpc.aio.AioRpcError:
        server = grpc.aio.server()
        jobs_grpc.add_JobServiceServicer_to_server(_Jobs(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await jobs_grpc.JobServiceStub(channel).CreateJob(jobs_pb.CreateJobRequest())
        await server.stop(None)
        return refused.value

    return asyncio.run(asyncio.wait_for(call(), 20))


def test_nabla_tells_each_rule_once(answer: grpc.aio.AioRpcError) -> None:
    """The rich status has the same message, or it would not count; the command prints the violations, not both."""
    assert rpc_status.from_call(answer) is not None  # type: ignore[arg-type]
    error = translate(answer, "here")
    assert isinstance(error, InvalidRequestError)
    assert error.violations == tuple(_THREE)
    said = str(end_of(error))
    assert [said.count(each.message) for each in _THREE] == [1, 1, 1]
