"""Intake: bounds on the size of messages, on how many arrive at a time, and on the bytes in use by methods."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, aclosing, asynccontextmanager, contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import grpc

from service.errors import Reason, ServiceError
from service.rpc.error_translation import Context, reject_call
from service.rpc.interceptors import METHOD_KINDS, method_of

__all__ = ["Arrivals", "BoundIntake", "BytesInFlight"]

# Names, ids and tokens are much smaller. A larger message is rejected before it is parsed, which would take long.
_MOST_MESSAGE_BYTES: Final = 64 << 10
# gRPC holds a message until it is complete, so that each of these may take as much memory as the largest one. Messages
# of normal clients arrive at once, and so even thousands of clients stay far below the bound.
_MOST_ARRIVING: Final = 128
# Clients that send a file may be slow, or stop.
_MOST_STREAMS: Final = 64
# Bytes of all messages in use by methods; in memory they are several times as large. Small messages are never rejected.
_MOST_BYTES: Final = 32 << 20
_SMALL_BYTES: Final = 64 << 10


class Arrivals:
    """Calls that wait for a message to arrive. A surplus call replaces the one that has waited longest."""

    def __init__(self, most: int) -> None:
        """Starts empty; at most `most` calls may wait at a time."""
        self._most = most
        self._waiting: dict[asyncio.Timeout, None] = {}  # the longest waiting first

    async def next_message(self, stream: AsyncIterator[bytes]) -> bytes | None:
        """Waits for the next message of a stream; None at its end.

        Raises:
            ServiceError: BUSY, because newer calls took the place of this one.
        """
        try:
            async with asyncio.timeout(None) as place:
                self._make_room()
                self._waiting[place] = None
                try:
                    return await anext(stream, None)
                finally:
                    self._waiting.pop(place, None)
        except TimeoutError as error:
            raise ServiceError(
                Reason.BUSY, f"more than {self._most} messages are being sent at a time: try again in a second"
            ) from error

    def _make_room(self) -> None:
        if len(self._waiting) >= self._most:
            longest = next(iter(self._waiting))
            del self._waiting[longest]
            longest.reschedule(asyncio.get_running_loop().time())


class BytesInFlight:
    """Bytes of the messages that are in use by methods.

    Attributes:
        held: Number of bytes at this moment.
    """

    def __init__(self, most: int) -> None:
        """Starts at zero; at most `most` bytes may be held at a time."""
        self._most = most
        self.held = 0

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Counts the bytes of a message until the block ends; small messages are never rejected.

        Raises:
            ServiceError: BUSY, because too many bytes are held.
        """
        if size > _SMALL_BYTES and self.held + size > self._most:
            raise ServiceError(
                Reason.BUSY,
                f"the service is at work on {self.held:,} bytes of messages, and takes at most {self._most:,} at a "
                "time: try again in a second",
            )
        self.held += size
        try:
            yield
        finally:
            self.held -= size


class BoundIntake(grpc.aio.ServerInterceptor):
    """Reads the messages of all calls within bounds. Has to stand right before the interceptor that parses them."""

    def __init__(
        self,
        limits: Mapping[str, int] = MappingProxyType({}),
        *,
        arriving: int = _MOST_ARRIVING,
        streams: int = _MOST_STREAMS,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        """Sets the bounds.

        Args:
            limits: Largest size of a message in bytes, by the path of its method; 64 KiB for other methods. For calls
                that send many messages, gRPC's own limit holds.
            arriving: Largest number of calls that wait for their only message.
            streams: Largest number of calls that wait for the next of many messages.
            most_bytes: Bytes of all messages in use by methods, and as many again for calls with many messages.
        """
        self._limits = limits
        self._arrivals = Arrivals(arriving)
        self._streams = Arrivals(streams)
        self._bytes = BytesInFlight(most_bytes)
        # Counted for themselves: a chunk is in hand for a moment, and to reject one would end the whole upload.
        self._chunks = BytesInFlight(most_bytes)

    async def intercept_service(self, continuation: Callable[..., Awaitable[Any]], handler_call_details: Any) -> Any:
        """Returns the method's handler, which reads the messages itself, while gRPC would read one before the call."""
        handler = await continuation(handler_call_details)
        if handler is None:  # no such method
            return None
        limit = self._limits.get(handler_call_details.method, _MOST_MESSAGE_BYTES)
        read = self._many if handler.request_streaming else partial(self._one, limit)
        kind = "stream_stream" if handler.response_streaming else "stream_unary"
        methods = {**dict.fromkeys(METHOD_KINDS), kind: _read_first(method_of(handler), read)}
        return handler._replace(**methods, request_streaming=True)

    @asynccontextmanager
    async def _one(self, limit: int, stream: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """Reads the only message of a call."""
        with ExitStack() as held:
            try:
                message = _require_fitting(await self._arrivals.next_message(stream), limit)
                held.enter_context(self._bytes.holding(len(message)))
            except ServiceError as error:
                await reject_call(error, context)
            yield message

    @asynccontextmanager
    async def _many(self, stream: AsyncIterator[bytes], context: Context) -> AsyncIterator[AsyncIterator[bytes]]:
        """Reads the messages of a call that sends any number of them."""
        async with aclosing(self._messages(stream, context)) as messages:
            yield messages

    async def _messages(self, stream: AsyncIterator[bytes], context: Context) -> AsyncGenerator[bytes, None]:
        try:
            while (message := await self._streams.next_message(stream)) is not None:
                with self._chunks.holding(len(message)):
                    yield message
        except ServiceError as error:
            await reject_call(error, context)


def _require_fitting(message: bytes | None, limit: int) -> bytes:
    """Returns the message of a call; raises ServiceError if there is none or it is larger than the limit."""
    if message is None:
        raise ServiceError(Reason.INVALID_REQUEST, "the call came without its message")
    if (size := len(message)) > limit:
        del message  # else the traceback of the error would hold it
        raise ServiceError(
            Reason.TOO_LARGE,
            f"the message of the call has {size:,} bytes, but the service takes at most {limit:,} for this method: "
            "give shorter names and lists",
        )
    return message


def _read_first(
    method: Callable[..., Any], read: Callable[[AsyncIterator[bytes], Context], AbstractAsyncContextManager[Any]]
) -> Callable[..., Any]:
    """Returns the method of a stream, which reads the argument of the given method from the stream."""

    async def call(stream: AsyncIterator[bytes], context: Context) -> Any:
        async with read(stream, context) as argument:
            return await method(argument, context)

    async def answers(stream: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
        async with read(stream, context) as argument:
            async for response in method(argument, context):
                yield response

    return answers if inspect.isasyncgenfunction(method) else call
