"""The connection to a service: where it is, and how gRPC has to treat it."""

import json
import os
from urllib.parse import quote

import grpc

from nablad.address import ADDRESS_VARIABLE, DEFAULT_ADDRESS, is_socket, parse_address

# Calls that do the same when they are made twice, and that may therefore be repeated behind the caller's back. Creating
# and verifying a job are among them, for they carry a request id.
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
    ("grpc.max_reconnect_backoff_ms", 2_000),  # gRPC's own two minutes would outlast every restart of a service
    ("grpc.enable_http_proxy", 0),  # a proxy for web pages does not know the way to a training service
)


# A connection that carries files is pinged as rarely as this: what is under way before a ping may take its time.
_RELAXED = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)
# A ping goes out after this part of the silence that is borne, and has the rest of it to be answered. The service takes
# pings faster than one in 10 s for an attack.
_PING_SHARE = 0.6


def _strict(silence_s: float) -> tuple[tuple[str, int], ...]:
    """Options that end a connection with an open call when nothing comes over it for so long, pings included."""
    time_ms = round(1000 * silence_s * _PING_SHARE)
    timeout_ms = round(1000 * silence_s) - time_ms
    return (
        ("grpc.keepalive_time_ms", time_ms),
        ("grpc.keepalive_timeout_ms", timeout_ms),
        ("grpc.http2.ping_timeout_ms", timeout_ms),  # else a ping is given a minute, whatever keepalive says
        ("grpc.http2.max_pings_without_data", 0),  # else the third ping waits for data or a minute: a watch sends none
    )


def resolve_address(address: str | None) -> str:
    """The address given, else that of the environment variable NABLA_SERVER, else this machine's usual one.

    Raises:
        InvalidRequestError: It is no address.
    """
    if address is None:
        address = os.environ.get(ADDRESS_VARIABLE, "").strip() or DEFAULT_ADDRESS
    return parse_address(address)


def open_channel(address: str, silence_s: float | None = None) -> grpc.Channel:
    """A channel to an address of `parse_address`'s; connects with the first call.

    Args:
        address: Where the service is.
        silence_s: For calls that send next to nothing: seconds without any sign of life after which the connection is
            taken for lost. None: a minute and a half, so that slow links may carry files.
    """
    # Said in full, because a host may have the name of one of gRPC's resolvers; and as the URL that gRPC reads.
    target = address if is_socket(address) else f"dns:///{quote(address, safe=':[]')}"
    return grpc.insecure_channel(target, options=(*_OPTIONS, *(_strict(silence_s) if silence_s else _RELAXED)))
