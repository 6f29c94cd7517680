"""The connection to a service: its address, its gRPC channels, and the call that all methods go through."""

import json
import os
from collections.abc import Callable, Iterator
from os import PathLike
from typing import Any, Self, TypeVar
from urllib.parse import quote

import grpc

from nablad.address import ADDRESS_VARIABLE, DEFAULT_ADDRESS, is_socket, parse_address
from nablad.client.translation import translating
from nablad.v1 import datasets_pb2_grpc, jobs_pb2_grpc, models_pb2_grpc

_Response = TypeVar("_Response")

PathName = str | PathLike[str]

# Idempotent calls, which gRPC may repeat by itself. Creating and verifying a job are among them, because they carry a
# request id.
_REPEATABLE = {
    "nablad.v1.JobService": (
        "CreateJob",
        "GetJob",
        "GetReceipt",
        "ListCheckpoints",
        "ListJobHistory",
        "ListJobs",
        "VerifyJob",
    ),
    "nablad.v1.DatasetService": ("GetDataset", "ListDatasets"),
    "nablad.v1.ModelService": ("GetModel", "ListModels"),
}

_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [
                {"service": service, "method": method} for service, methods in _REPEATABLE.items() for method in methods
            ],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}

# The receipt of a million epochs has 70 MB; everything else stays far below.
_MOST_MESSAGE_BYTES = 128 << 20

_OPTIONS = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.max_receive_message_length", _MOST_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),  # gRPC's default of two minutes is longer than a restart of the service
    ("grpc.enable_http_proxy", 0),  # a web proxy does not reach a training service
)


# A connection that carries files is pinged rarely, because a ping waits behind the data that is under way.
_RELAXED = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)
# A ping is sent after this share of the tolerated silence, and must be answered within the rest. The service treats
# more than one ping in 10 s as an attack.
_PING_SHARE = 0.6


class Connection:
    """A connection to a nablad service; threads may share it.

    Attributes:
        address: Address of the service, as ``host:port``.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        timeout_s: float = 30.0,
        patience_s: float = 120.0,
        silence_s: float = 25.0,
    ) -> None:
        """Connects with the first call.

        Args:
            address: ``host``, ``host:port``, ``[ipv6]:port`` or ``unix:path``; the default port is 7471. None: the
                address in the environment variable NABLA_SERVER, else 127.0.0.1:7471.
            timeout_s: Limit of a call with one answer, in seconds. Streams have no limit; calls that wait for
                checkpoints have at least two minutes.
            patience_s: Time for which a watch tries to reach a lost service, in seconds.
            silence_s: Time without any sign of life after which a watch treats the service as lost, in seconds. Below
                17, the service treats the pings that this needs as an attack, and closes the connection.

        Raises:
            InvalidRequestError: It is not an address.
        """
        self.address = resolve_address(address)
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._channel = open_channel(self.address)
        # Watches have a connection of their own, so that no file delays the pings that detect a silent service.
        self._watch_channel = open_channel(self.address, silence_s)
        self._jobs = jobs_pb2_grpc.JobServiceStub(self._channel)
        self._watches = jobs_pb2_grpc.JobServiceStub(self._watch_channel)
        self._datasets = datasets_pb2_grpc.DatasetServiceStub(self._channel)
        self._models = models_pb2_grpc.ModelServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all calls and the connection."""
        self._watch_channel.close()
        self._channel.close()

    def _call(self, call: Callable[..., _Response], request: Any, *, at_least_s: float = 0.0) -> _Response:
        with translating(self.address):
            return call(request, timeout=max(self._timeout_s, at_least_s))

    def _pages(self, call: Callable[..., Any], request: Any) -> Iterator[Any]:
        while True:
            page = self._call(call, request)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


def resolve_address(address: str | None) -> str:
    """Returns the address given, else that of the environment variable NABLA_SERVER, else 127.0.0.1:7471.

    Raises:
        InvalidRequestError: It is not an address.
    """
    if address is None:
        address = os.environ.get(ADDRESS_VARIABLE, "").strip() or DEFAULT_ADDRESS
    return parse_address(address)


def open_channel(address: str, silence_s: float | None = None) -> grpc.Channel:
    """Opens a channel, which connects with the first call.

    Args:
        address: Address of the service, as `parse_address` returns it.
        silence_s: Seconds without any sign of life after which the connection is lost, for calls that send little.
            None: a minute and a half, so that slow links may carry files.
    """
    # With its scheme, because a host may be named like one of gRPC's resolvers; quoted, because gRPC reads a URL.
    target = address if is_socket(address) else f"dns:///{quote(address, safe=':[]')}"
    return grpc.insecure_channel(target, options=(*_OPTIONS, *(_strict(silence_s) if silence_s else _RELAXED)))


def _strict(silence_s: float) -> tuple[tuple[str, int], ...]:
    """Returns options that close a connection with an open call after so long without a byte or a ping answered."""
    time_ms = round(1000 * silence_s * _PING_SHARE)
    timeout_ms = round(1000 * silence_s) - time_ms
    return (
        ("grpc.keepalive_time_ms", time_ms),
        ("grpc.keepalive_timeout_ms", timeout_ms),
        ("grpc.http2.ping_timeout_ms", timeout_ms),  # else a ping may take a minute, whatever keepalive says
        (
            "grpc.http2.max_pings_without_data",
            0,
        ),  # else the third ping waits a minute for data, which a watch never sends
    )
