"""Translation of gRPC's errors to those of nablad: the only place that knows both."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from nablad.errors import (
    AlreadyExistsError,
    ConflictError,
    DataLossError,
    InternalError,
    InvalidRequestError,
    NablaError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
    Violation,
)

_ERRORS: dict[grpc.StatusCode, Callable[[str], NablaError]] = {
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.FAILED_PRECONDITION: ConflictError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: TooLargeError,
    grpc.StatusCode.DATA_LOSS: DataLossError,
}
_NO_ANSWER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


@contextmanager
def translating(address: str) -> Iterator[None]:
    """Raises the errors of calls to the service at ``address`` as ``NablaError``."""
    try:
        yield
    except grpc.RpcError as error:
        raise translate(error, address) from error


def translate(error: grpc.RpcError, address: str) -> NablaError:
    """Returns the error of nablad for an error of a call to the service at ``address``."""
    code, sentence = error.code(), error.details() or "No reason was given."
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidRequestError(sentence, _violations(_status(error)))
    if code in _NO_ANSWER:
        return UnavailableError(sentence if _said_by_service(error) else _no_answer(code, sentence, address))
    if code in _ERRORS:
        return _ERRORS[code](sentence)
    return InternalError(f"The service at {address} did not finish the call ({code.name}): {sentence}")


def _no_answer(code: grpc.StatusCode, sentence: str, address: str) -> str:
    what = "did not answer in time" if code is grpc.StatusCode.DEADLINE_EXCEEDED else "cannot be reached"
    return (
        f"The service at {address} {what}: is `nablad serve` running there? "
        f"Give another address with --server or NABLA_SERVER. ({sentence})"
    )


def _said_by_service(error: grpc.RpcError) -> bool:
    """Returns true if the service wrote the error: it adds an ErrorInfo, which gRPC's own errors do not have."""
    return any(detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR) for detail in _status(error).details)


def _violations(status: status_pb2.Status) -> list[Violation]:
    found = []
    for detail in status.details:
        request = error_details_pb2.BadRequest()
        if detail.Unpack(request):
            found += [Violation(each.field, each.description) for each in request.field_violations]
    return found


def _status(error: grpc.RpcError) -> status_pb2.Status:
    """Returns the rich status of an error; an empty one if there is none, or if it contradicts the error."""
    try:
        return rpc_status.from_call(cast("grpc.Call", error)) or status_pb2.Status()  # every error of a call is one
    except ValueError:
        return status_pb2.Status()
