"""What clients send, bounded: the size of messages, how many are on their way, and how many bytes are worked on."""

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

__all__ = ["Arrivals", "BoundIntake", "BytesInFlight"]

# Names, ids and tokens are a small part of it. What is larger is refused before it is read, which would take long.
_MOST_MESSAGE_BYTES: Final = 64 << 10
# gRPC holds a message until all of it is there: each of these may take as much as the largest one. Messages of clients
# that do not dawdle are on their way for no time at all, so that crowds of them are far below.
_MOST_ARRIVING: Final = 128
# Clients that send a file may be slow, and stop.
_MOST_STREAMS: Final = 64
# All messages that methods have in hand; in memory they are several times as large. Those that are small come in any
# number.
_MOST_BYTES: Final = 32 << 20
_SMALL_BYTES: Final = 64 << 10

_KINDS: Final = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Arrivals:
    """Calls that wait for a message of theirs. When one too many comes, the one that has waited longest is refused."""

    def __init__(self, most: int) -> None:
        """None waits; `most` is how many may."""
        self._most = most
        self._waiting: dict[asyncio.Timeout, None] = {}  # those first that have waited longest

    async def next_message(self, stream: AsyncIterator[bytes]) -> bytes | None:
        """Waits for the next message of a stream; None at its end.

        Raises:
            ServiceError: BUSY.
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
    """Bytes of the messages that methods have in hand.

    Attributes:
        held: How many there are.
    """

    def __init__(self, most: int) -> None:
        """There are none; `most` is how many there may be."""
        self._most = most
        self.held = 0

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Counts the bytes of a message until the block ends; small ones are let in always.

        Raises:
            ServiceError: BUSY.
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
    """Reads the messages of all calls, within bounds. Has to come right before the interceptor that parses them."""

    def __init__(
        self,
        limits: Mapping[str, int] = MappingProxyType({}),
        *,
        arriving: int = _MOST_ARRIVING,
        streams: int = _MOST_STREAMS,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        """Reads nothing yet.

        Args:
            limits: Bytes that the message of a method may have, by the method's path; others have 64 KiB. Where a call
                sends many messages, gRPC's own limit holds.
            arriving: Calls with one message that may be on its way at a time.
            streams: Calls with many messages that may wait for the next one at a time.
            most_bytes: Of all messages that methods have in hand, and as many again of calls with many messages.
        """
        self._limits = limits
        self._arrivals = Arrivals(arriving)
        self._streams = Arrivals(streams)
        self._bytes = BytesInFlight(most_bytes)
        # Counted for themselves: a chunk is in hand for a moment, and to reject_call one would end the whole file.
        self._chunks = BytesInFlight(most_bytes)

    async def intercept_service(self, continuation: Callable[..., Awaitable[Any]], handler_call_details: Any) -> Any:
        """The method's handler, which reads by itself what gRPC would have read before it was called."""
        handler = await continuation(handler_call_details)
        if handler is None:  # no such method
            return None
        kinds = {kind: getattr(handler, kind) for kind in _KINDS}
        method = next(method for method in kinds.values() if method)
        limit = self._limits.get(handler_call_details.method, _MOST_MESSAGE_BYTES)
        read = self._many if handler.request_streaming else partial(self._one, limit)
        kind = "stream_stream" if handler.response_streaming else "stream_unary"
        return handler._replace(**{**dict.fromkeys(kinds), kind: _reading(method, read)}, request_streaming=True)

    @asynccontextmanager
    async def _one(self, limit: int, stream: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """The only message of a call."""
        with ExitStack() as held:
            try:
                message = _fitting(await self._arrivals.next_message(stream), limit)
                held.enter_context(self._bytes.holding(len(message)))
            except ServiceError as error:
                await reject_call(error, context)
            yield message

    @asynccontextmanager
    async def _many(self, stream: AsyncIterator[bytes], context: Context) -> AsyncIterator[AsyncIterator[bytes]]:
        """The messages of a call that sends any number of them."""
        async with aclosing(self._messages(stream, context)) as messages:
            yield messages

    async def _messages(self, stream: AsyncIterator[bytes], context: Context) -> AsyncGenerator[bytes, None]:
        try:
            while (message := await self._streams.next_message(stream)) is not None:
                with self._chunks.holding(len(message)):
                    yield message
        except ServiceError as error:
            await reject_call(error, context)


def _fitting(message: bytes | None, limit: int) -> bytes:
    """The message of a call, which has to be there and no larger than a limit."""
    if message is None:
        raise ServiceError(Reason.INVALID_REQUEST, "the call came without its message")
    if (size := len(message)) > limit:
        del message  # or the error would hold it
        raise ServiceError(
            Reason.TOO_LARGE,
            f"the message of the call has {size:,} bytes, but the service takes at most {limit:,} for this method: "
            "give shorter names and lists",
        )
    return message


def _reading(
    method: Callable[..., Any], read: Callable[[AsyncIterator[bytes], Context], AbstractAsyncContextManager[Any]]
) -> Callable[..., Any]:
    """The method, given what is read of the stream in place of it."""

    async def call(stream: AsyncIterator[bytes], context: Context) -> Any:
        async with read(stream, context) as argument:
            return await method(argument, context)

    async def answers(stream: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
        async with read(stream, context) as argument:
            async for response in method(argument, context):
                yield response

    return answers if inspect.isasyncgenfunction(method) else call
