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
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from nablad.errors import Violation

__all__ = ["Context", "Reason", "RefuseUnreadable", "ServiceError", "answer_errors"]

_log = logging.getLogger(__name__)

_Servicer = TypeVar("_Servicer")

# The context of a call, of whatever messages.
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_DOMAIN = "nablad"
# Trailing metadata may have 8 KiB. The sentence goes twice: in the status, and with each byte as up to three beside it.
_MOST_STATUS_BYTES = 5000
_MOST_SENTENCE_BYTES = 800
_MOST_VIOLATIONS = 25
_MOST_PART_BYTES = 250


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
    DAMAGED = "a file of the service is not what it was"
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
    Reason.DAMAGED: code_pb2.DATA_LOSS,
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
        metadata = {key: _cut(value) for key, value in self.metadata.items()}
        info = error_details_pb2.ErrorInfo(reason=self.reason.name, domain=_DOMAIN, metadata=metadata)
        status = status_pb2.Status(
            code=_STATUS_CODES[self.reason], message=_cut(self.sentence, _MOST_SENTENCE_BYTES), details=[_pack(info)]
        )
        if self.violations:
            status.details.append(_pack(_bad_request(self.violations, _MOST_STATUS_BYTES - status.ByteSize())))
        return status


def _bad_request(violations: Sequence[Violation], room_bytes: int) -> error_details_pb2.BadRequest:
    """As many of the violations as there is room for, and how many more there are."""
    told = [_field_violation(each) for each in violations[:_MOST_VIOLATIONS]]
    while sum(each.ByteSize() for each in told) > room_bytes:
        told.pop()
    if len(violations) > len(told):
        told.append(_field_violation(Violation("", f"and {len(violations) - len(told)} more")))
    return error_details_pb2.BadRequest(field_violations=told)


def _field_violation(violation: Violation) -> error_details_pb2.BadRequest.FieldViolation:
    return error_details_pb2.BadRequest.FieldViolation(field=_cut(violation.field), description=_cut(violation.message))


def _cut(text: str, most_bytes: int = _MOST_PART_BYTES) -> str:
    """The text as it is, or its beginning if it takes more bytes in UTF-8."""
    encoded = text.encode()
    if len(encoded) <= most_bytes:
        return text
    return encoded[: most_bytes - len("…".encode())].decode(errors="ignore") + "…"


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


class RefuseUnreadable(grpc.aio.ServerInterceptor):
    """Answers messages that cannot be read with INVALID_ARGUMENT; gRPC itself would say UNKNOWN.

    For all services of a server, those of other packages included.
    """

    async def intercept_service(self, continuation: Callable[..., Awaitable[Any]], handler_call_details: Any) -> Any:
        """The method's handler, given bytes by gRPC and parsing them itself."""
        handler = await continuation(handler_call_details)
        if handler is None:  # no such method
            return None
        kinds = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
        kind = next(kind for kind in kinds if getattr(handler, kind))
        parser = _stream_parser if handler.request_streaming else _message_parser
        method = _wrap_parsed(getattr(handler, kind), parser(handler.request_deserializer))
        return handler._replace(request_deserializer=None, **{kind: method})


# From the bytes of a message, or a stream of them, to what a method takes.
_Parse = Callable[[Any, Context], Awaitable[Any]]


def _message_parser(deserialise: Callable[[bytes], Any]) -> _Parse:
    async def parse(data: bytes, context: Context) -> Any:
        try:
            return deserialise(data)
        except DecodeError as error:
            await _answer(ServiceError(Reason.INVALID_REQUEST, f"a message cannot be read: {error}"), "parse", context)

    return parse


def _stream_parser(deserialise: Callable[[bytes], Any]) -> _Parse:
    parse_message = _message_parser(deserialise)

    async def parse(stream: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
        return _messages(stream, context)

    async def _messages(stream: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
        async for data in stream:
            yield await parse_message(data, context)

    return parse


def _wrap_parsed(method: Callable[..., Any], parse: _Parse) -> Callable[..., Any]:
    """The method, of the same kind, given what `parse` makes of its first argument."""

    async def call(data: Any, context: Context) -> Any:
        return await method(await parse(data, context), context)

    async def stream(data: Any, context: Context) -> AsyncIterator[Any]:
        async for response in method(await parse(data, context), context):
            yield response

    return stream if inspect.isasyncgenfunction(method) else call
