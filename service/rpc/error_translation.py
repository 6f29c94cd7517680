"""Error translation: the one place where exceptions of the service become statuses of gRPC."""

import functools
import hmac
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc
from grpc_status import rpc_status

from service.errors import DamagedError, Reason, ServiceError
from service.rpc.status import status_of
from service.storage.reserve import is_full_disk
from workers.transport.session import SECRET_KEY

__all__ = ["Context", "answer_errors", "reject_call", "require_secret"]

_log = logging.getLogger(__name__)

_Servicer = TypeVar("_Servicer")

# Context of a call with messages of any type.
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


def answer_errors(servicer: type[_Servicer]) -> type[_Servicer]:
    """Class decorator: makes every gRPC method of a servicer answer a ServiceError with its status.

    A DamagedError and a full disk are answered as such. Any other exception is logged in full and answered INTERNAL.
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
        except Exception as error:  # noqa: BLE001 (the boundary: no exception may pass it)
            await _answer(error, method.__name__, context)

    return wrapped


def _wrap_stream(method: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    @functools.wraps(method)
    async def wrapped(self: object, request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            async for response in method(self, request, context):
                yield response
        except Exception as error:  # noqa: BLE001 (the boundary: no exception may pass it)
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
    """Aborts a call with the status of an error."""
    status = rpc_status.to_status(status_of(error))
    await context.abort(status.code, status.details, status.trailing_metadata)


async def require_secret(context: Context, secret: str, owner: str) -> None:
    """Aborts a call that does not carry the secret.

    Args:
        context: Context of the call.
        secret: Secret that callers have to know.
        owner: Owner of the secret, as the error names it.
    """
    sent = dict(context.invocation_metadata() or ()).get(SECRET_KEY, "")
    if not hmac.compare_digest(str(sent).encode(), secret.encode()):
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, f"this is not the secret of this {owner}")
