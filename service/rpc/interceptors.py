"""Interceptors of gRPC servers: unreadable messages, answers that are bytes, methods that a server does not have."""

import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from service.errors import Reason, ServiceError
from service.rpc.error_translation import Context, reject_call

__all__ = ["METHOD_KINDS", "RejectUnimplemented", "RejectUnreadable", "SendBytes", "method_of", "replace_method"]

_log = logging.getLogger(__name__)

METHOD_KINDS: Final = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
"""Attributes of a gRPC handler, one of which holds its method."""

_LOG_INTERVAL_SECONDS: Final = 60.0
_MOST_CHARACTERS: Final = 100
# Modules of gRPC's compiler, with the methods of a contract. They raise NotImplementedError, which gRPC logs in full.
_GENERATED: Final = "_pb2_grpc"


def method_of(handler: Any) -> Callable[..., Any]:
    """Returns the method of a gRPC handler."""
    method: Callable[..., Any] = next(filter(None, (getattr(handler, kind) for kind in METHOD_KINDS)))
    return method


def replace_method(handler: Any, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Any:
    """Returns a gRPC handler of the same kind whose method is wrapped."""
    kind = next(kind for kind in METHOD_KINDS if getattr(handler, kind))
    return handler._replace(**{kind: wrap(getattr(handler, kind))})


class RejectUnreadable(grpc.aio.ServerInterceptor):
    """Rejects unreadable messages with INVALID_ARGUMENT, because gRPC itself would answer UNKNOWN.

    Covers all services of a server, those of other packages included.
    """

    async def intercept_service(self, continuation: Callable[..., Awaitable[Any]], handler_call_details: Any) -> Any:
        """Returns the method's handler, which gets bytes from gRPC and parses them itself."""
        handler = await continuation(handler_call_details)
        if handler is None:  # no such method
            return None
        parser = _stream_parser if handler.request_streaming else _message_parser
        parse = parser(handler.request_deserializer)
        return replace_method(handler, lambda method: _parse_first(method, parse))._replace(request_deserializer=None)


class SendBytes(grpc.aio.ServerInterceptor):
    """Lets methods answer with serialised messages, so that an answer to many callers is serialised once."""

    async def intercept_service(self, continuation: Callable[..., Awaitable[Any]], handler_call_details: Any) -> Any:
        """Returns the method's handler, which sends bytes as they are."""
        handler = await continuation(handler_call_details)
        if handler is None:  # no such method
            return None
        serialise = handler.response_serializer
        return handler._replace(
            response_serializer=lambda answer: answer if isinstance(answer, bytes) else serialise(answer)
        )


class RejectUnimplemented(grpc.aio.ServerInterceptor):
    """Answers UNIMPLEMENTED, and logs it at most once a minute. Has to be the last interceptor of a server.

    Covers methods that no servicer of the server has, and those of a contract that its servicer leaves out.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Has logged nothing yet; `clock` returns monotonic seconds."""
        self._clock = clock
        self._quiet_until = -float("inf")
        self._unlogged = 0

    async def intercept_service(self, continuation: Callable[..., Awaitable[Any]], handler_call_details: Any) -> Any:
        """Returns the method's handler; None, which gRPC answers with UNIMPLEMENTED, if there is no method."""
        handler = await continuation(handler_call_details)
        if handler is not None and not _is_left_out(handler):
            return handler
        self._log(handler_call_details.method)
        return None

    def _log(self, method: str) -> None:
        now = self._clock()
        if now < self._quiet_until:
            self._unlogged += 1
            return
        more = f"; so were {self._unlogged} more calls since the last such line" if self._unlogged else ""
        self._quiet_until, self._unlogged = now + _LOG_INTERVAL_SECONDS, 0
        _log.warning("answered UNIMPLEMENTED: this server has no method %r%s", method[:_MOST_CHARACTERS], more)


def _is_left_out(handler: Any) -> bool:
    return str(getattr(method_of(handler), "__module__", "")).endswith(_GENERATED)


# Parses the bytes of a message, or of a stream of messages, into the argument of a method.
_Parse = Callable[[Any, Context], Awaitable[Any]]


def _message_parser(deserialise: Callable[[bytes], Any]) -> _Parse:
    async def parse(data: bytes, context: Context) -> Any:
        try:
            return deserialise(data)
        except DecodeError as error:
            await reject_call(ServiceError(Reason.INVALID_REQUEST, f"a message cannot be read: {error}"), context)

    return parse


def _stream_parser(deserialise: Callable[[bytes], Any]) -> _Parse:
    parse_message = _message_parser(deserialise)

    async def parse(stream: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
        return _messages(stream, context)

    async def _messages(stream: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
        async for data in stream:
            yield await parse_message(data, context)

    return parse


def _parse_first(method: Callable[..., Any], parse: _Parse) -> Callable[..., Any]:
    """Returns a method of the same kind, whose first argument is parsed before the call."""

    async def call(data: Any, context: Context) -> Any:
        return await method(await parse(data, context), context)

    async def stream(data: Any, context: Context) -> AsyncIterator[Any]:
        async for response in method(await parse(data, context), context):
            yield response

    return stream if inspect.isasyncgenfunction(method) else call
