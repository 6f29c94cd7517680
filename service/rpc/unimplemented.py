"""Calls of methods that a server does not have: a fuzzer's, or those of a client of another release."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc

__all__ = ["RejectUnimplemented"]

_log = logging.getLogger(__name__)

_QUIET_SECONDS: Final = 60.0
_MOST_CHARACTERS: Final = 100
# Modules of gRPC's compiler, with the methods of a contract. They raise NotImplementedError, which gRPC logs in full.
_GENERATED: Final = "_pb2_grpc"


class RejectUnimplemented(grpc.aio.ServerInterceptor):
    """Answers UNIMPLEMENTED, and says so in the log, with one line a minute. Has to be a server's last interceptor.

    For methods that no servicer of the server has, and for those that the contract has and the servicer leaves out.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives monotonic seconds."""
        self._clock = clock
        self._quiet_until = -float("inf")
        self._untold = 0

    async def intercept_service(self, continuation: Callable[..., Awaitable[Any]], handler_call_details: Any) -> Any:
        """The method's handler; None, which gRPC answers UNIMPLEMENTED, if there is no method behind it."""
        handler = await continuation(handler_call_details)
        if handler is not None and not _is_left_out(handler):
            return handler
        self._log(handler_call_details.method)
        return None

    def _log(self, method: str) -> None:
        now = self._clock()
        if now < self._quiet_until:
            self._untold += 1
            return
        more = f"; so were {self._untold} more calls since the last such line" if self._untold else ""
        self._quiet_until, self._untold = now + _QUIET_SECONDS, 0
        _log.warning("answered UNIMPLEMENTED: this server has no method %r%s", method[:_MOST_CHARACTERS], more)


def _is_left_out(handler: Any) -> bool:
    methods = (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
    method = next(method for method in methods if method)
    return str(getattr(method, "__module__", "")).endswith(_GENERATED)
