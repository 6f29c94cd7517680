"""Metrics of RPCs. No maintained library provides them for grpc.aio; ARCHITECTURE.md names those considered."""

import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc

from service.metrics.instruments import Instruments
from service.rpc.error_translation import Context
from service.rpc.interceptors import replace_method

__all__ = ["CountCalls"]

# Label of methods that do not exist. Their own names would let clients create any number of series.
_UNKNOWN: Final = "unknown"
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class CountCalls(grpc.aio.ServerInterceptor):
    """Counts a server's calls by method and status code, and measures them. Must be its first interceptor."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments

    async def intercept_service(self, continuation: Callable[..., Awaitable[Any]], handler_call_details: Any) -> Any:
        """Returns the method's handler with its calls counted."""
        handler = await continuation(handler_call_details)
        if handler is None:  # no such method
            self._instruments.rpcs.labels(_UNKNOWN, grpc.StatusCode.UNIMPLEMENTED.name).inc()
            return None
        # Drop the package: nablad.v1.JobService/GetJob becomes JobService/GetJob.
        method = handler_call_details.method.lstrip("/").rpartition(".")[2]
        timed = not handler.response_streaming
        return replace_method(handler, lambda function: self._wrap(method, function, timed=timed))

    def _wrap(self, method: str, function: Callable[..., Any], *, timed: bool) -> Callable[..., Any]:
        async def call(request: Any, context: Context) -> Any:
            with self._counted(method, context, timed=timed):
                return await function(request, context)

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._counted(method, context, timed=timed):
                async for response in function(request, context):
                    yield response

        return stream if inspect.isasyncgenfunction(function) else call

    @contextmanager
    def _counted(self, method: str, context: Context, *, timed: bool) -> Iterator[None]:
        active = self._instruments.rpcs_active.labels(method)
        active.inc()
        begin, code = time.perf_counter(), grpc.StatusCode.CANCELLED
        try:
            yield
            code = _code(context, grpc.StatusCode.OK)
        except Exception:
            code = _code(context, grpc.StatusCode.UNKNOWN)
            raise
        finally:
            # A client that goes away cancels the task, or closes the generator; neither is an Exception.
            active.dec()
            self._instruments.rpcs.labels(method, code.name).inc()
            if timed:
                self._instruments.rpc_seconds.labels(method).observe(time.perf_counter() - begin)


def _code(context: Context, default: grpc.StatusCode) -> grpc.StatusCode:
    """Returns the status code of a call; the default if the method returned or failed without setting one."""
    code: Any = context.code()  # a number or a StatusCode, whatever the types say
    return _CODES.get(code, code) if code else default
