"""What the service answers when it cannot do what was asked, and the one place where that becomes a gRPC status.

An error carries a public sentence, which the client sees, and a private diagnostic, which only the log sees.
"""

import functools
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from nablad.errors import Violation

__all__ = ["Context", "Reason", "ServiceError", "answer_errors"]

_log = logging.getLogger(__name__)

_Servicer = TypeVar("_Servicer")

# The context of a call, of whatever messages.
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_DOMAIN = "nablad"
# Status details share a limit of 8 KiB with the rest of the trailing metadata.
_MOST_VIOLATIONS = 25
_LONGEST_SENTENCE = 250


class Reason(Enum):
    """Why a call is refused. The name goes to the client as ErrorInfo.reason."""

    INVALID_SPEC = "a job spec breaks rules"
    INVALID_REQUEST = "a request makes no sense"
    INVALID_DATA = "a file is not what it has to be"
    NOT_FOUND = "there is no such thing"
    ALREADY_EXISTS = "the name is taken"
    WRONG_STATE = "the thing's state does not allow it"
    IN_USE = "something that goes on needs it"
    TOO_LARGE = "more bytes than the service takes"
    GOING_AWAY = "the service is shutting down"


_STATUS_CODES: Mapping[Reason, int] = {
    Reason.INVALID_SPEC: code_pb2.INVALID_ARGUMENT,
    Reason.INVALID_REQUEST: code_pb2.INVALID_ARGUMENT,
    Reason.INVALID_DATA: code_pb2.INVALID_ARGUMENT,
    Reason.NOT_FOUND: code_pb2.NOT_FOUND,
    Reason.ALREADY_EXISTS: code_pb2.ALREADY_EXISTS,
    Reason.WRONG_STATE: code_pb2.FAILED_PRECONDITION,
    Reason.IN_USE: code_pb2.FAILED_PRECONDITION,
    Reason.TOO_LARGE: code_pb2.RESOURCE_EXHAUSTED,
    Reason.GOING_AWAY: code_pb2.UNAVAILABLE,
}


class ServiceError(Exception):
    """A call is refused.

    Attributes:
        reason: Why, for programs.
        sentence: Why, for people: what was expected, what came, what to do.
        violations: The broken rules, if there are several things to say.
        metadata: Ids that the sentence is about.
        diagnostic: For the log only.
    """

    def __init__(
        self,
        reason: Reason,
        sentence: str,
        *,
        violations: Sequence[Violation] = (),
        diagnostic: str = "",
        **metadata: str,
    ) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence
        self.violations = tuple(violations)
        self.metadata = metadata
        self.diagnostic = diagnostic

    def status(self) -> status_pb2.Status:
        """The error as google.rpc.Status with ErrorInfo and, if there are violations, BadRequest."""
        details = [error_details_pb2.ErrorInfo(reason=self.reason.name, domain=_DOMAIN, metadata=self.metadata)]
        if self.violations:
            details.append(_bad_request(self.violations))
        return status_pb2.Status(code=_STATUS_CODES[self.reason], message=self.sentence, details=map(_pack, details))


def _bad_request(violations: Sequence[Violation]) -> error_details_pb2.BadRequest:
    told = list(violations[:_MOST_VIOLATIONS])
    if len(violations) > len(told):
        told.append(Violation("", f"and {len(violations) - len(told)} more"))
    return error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=_cut(each.field), description=_cut(each.message))
            for each in told
        ]
    )


def _cut(sentence: str) -> str:
    return sentence if len(sentence) <= _LONGEST_SENTENCE else sentence[: _LONGEST_SENTENCE - 1] + "…"


def _pack(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def answer_errors(servicer: type[_Servicer]) -> type[_Servicer]:
    """Class decorator: every gRPC method of the servicer answers ServiceError with its status.

    Anything else that a method raises is logged in full and answered INTERNAL without details.
    """
    for name, method in vars(servicer).copy().items():
        if name[0].isupper() and inspect.isfunction(method):
            wrap = _wrap_stream if inspect.isasyncgenfunction(method) else _wrap_call
            setattr(servicer, name, wrap(method))
    return servicer


def _wrap_call(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(method)
    async def wrapped(self: object, request: Any, context: Context) -> Any:
        try:
            return await method(self, request, context)
        except Exception as error:  # noqa: BLE001 (the boundary: nothing may pass it)
            await _answer(error, method.__name__, context)

    return wrapped


def _wrap_stream(method: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    @functools.wraps(method)
    async def wrapped(self: object, request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            async for response in method(self, request, context):
                yield response
        except Exception as error:  # noqa: BLE001 (the boundary: nothing may pass it)
            await _answer(error, method.__name__, context)

    return wrapped


async def _answer(error: Exception, method: str, context: Context) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, ServiceError):
        _log.error("%s failed", method, exc_info=error)
        await context.abort(grpc.StatusCode.INTERNAL, f"{method} failed in the service; its log says more")
    if error.diagnostic:
        _log.warning("%s: %s (%s)", method, error.sentence, error.diagnostic)
    status = rpc_status.to_status(error.status())
    await context.abort(status.code, status.details, status.trailing_metadata)
