"""The boundary between gRPC and the service: the one place where errors become statuses, and bytes messages."""

import functools
import hmac
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from service.errors import DamagedError, Reason, ServiceError
from service.rpc.status import status_of
from service.storage.reserve import is_full_disk
from workers.worker import SECRET_KEY

__all__ = ["Context", "RejectUnreadable", "SendBytes", "answer_errors", "reject_call", "require_secret", "with_method"]

_log = logging.getLogger(__name__)

_Servicer = TypeVar("_Servicer")

# The context of a call, of whatever messages.
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


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
    if is_full_disk(error):
        _log.error("%s: %s", method, error)
        error = ServiceError(Reason.TOO_LARGE, "the service's disk is full: make room there, and try again")
    if isinstance(error, DamagedError):
        _log.error("%s: %s", method, error)
        error = ServiceError(Reason.DAMAGED, str(error), violations=(), **error.metadata)
    if not isinstance(error, ServiceError):
        _log.error("%s failed", method, exc_info=error)
        await context.abort(grpc.StatusCode.INTERNAL, f"{method} failed in the service; its log says more")
    await reject_call(error, context)


async def reject_call(error: ServiceError, context: Context) -> NoReturn:
    """Ends a call with the status of an error."""
    status = rpc_status.to_status(status_of(error))
    await context.abort(status.code, status.details, status.trailing_metadata)


async def require_secret(context: Context, secret: str, whose: str) -> None:
    """Returns if a call carries the secret; aborts the call if not.

    Args:
        context: The call's.
        secret: That callers have to know.
        whose: The secret of this, as the refusal names it.
    """
    said = dict(context.invocation_metadata() or ()).get(SECRET_KEY, "")
    if not hmac.compare_digest(str(said).encode(), secret.encode()):
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, f"this is not the secret of this {whose}")


class RejectUnreadable(grpc.aio.ServerInterceptor):
    """Answers messages that cannot be read with INVALID_ARGUMENT; gRPC itself would say UNKNOWN.

    For all services of a server, those of other packages included.
    """

    async def intercept_service(self, continuation: Callable[..., Awaitable[Any]], handler_call_details: Any) -> Any:
        """The method's handler, given bytes by gRPC and parsing them itself."""
        handler = await continuation(handler_call_details)
        if handler is None:  # no such method
            return None
        parser = _stream_parser if handler.request_streaming else _message_parser
        parse = parser(handler.request_deserializer)
        return with_method(handler, lambda method: _wrap_parsed(method, parse))._replace(request_deserializer=None)


class SendBytes(grpc.aio.ServerInterceptor):
    """Lets methods answer with the bytes of a message: what many are told is serialised once."""

    async def intercept_service(self, continuation: Callable[..., Awaitable[Any]], handler_call_details: Any) -> Any:
        """The method's handler, which sends bytes as they are."""
        handler = await continuation(handler_call_details)
        if handler is None:  # no such method
            return None
        serialise = handler.response_serializer
        return handler._replace(
            response_serializer=lambda answer: answer if isinstance(answer, bytes) else serialise(answer)
        )


def with_method(handler: Any, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Any:
    """A handler of gRPC's with what `wrap` makes of its method, whichever of the four kinds that is."""
    kinds = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
    kind = next(kind for kind in kinds if getattr(handler, kind))
    return handler._replace(**{kind: wrap(getattr(handler, kind))})


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
