"""nablad: distributed training of multi-layer perceptrons.

    from nablad import Client

    with Client("127.0.0.1:7471") as client:
        print(client.job("…").state)

This package is the client's side: the client, the command ``nabla``, job files and errors.
"""

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from nablad.client import Client, PredictionRun

__all__ = [
    "AlreadyExistsError",
    "Client",
    "ConflictError",
    "DataLossError",
    "InternalError",
    "InvalidRequestError",
    "NablaError",
    "NotFoundError",
    "PredictionRun",
    "TooLargeError",
    "UnavailableError",
    "Violation",
]


def __getattr__(name: str) -> Any:
    """Imports the client, and with it gRPC, at first use."""
    if name not in {"Client", "PredictionRun"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nablad import client  # noqa: PLC0415  # see above

    return getattr(client, name)
