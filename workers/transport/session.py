"""gRPC session with a parameter server: the header of its calls, the options of its channels, and how it fails."""

__all__ = ["SECRET_KEY", "ParameterServerLostError", "RejectedError", "channel_options"]

SECRET_KEY = "nablad-secret"  # noqa: S105 (the name of a metadata entry)
"""Metadata entry of each call that holds the secret of the job."""

# Room of a message beside one assignment, and the highest limit that gRPC accepts.
_MESSAGE_OVERHEAD_BYTES = 1 << 20
_MOST_MESSAGE_BYTES = (1 << 31) - 1


class ParameterServerLostError(Exception):
    """The parameter server cannot be reached any more."""


class RejectedError(Exception):
    """The parameter server rejected this worker."""


def channel_options(message_bytes: int) -> list[tuple[str, int]]:
    """Returns options for both ends of a parameter server's channels: messages fit, and a dead peer is noticed.

    A peer is pinged every 5 s, however long it computes, and is lost when it does not answer within 5 s.

    Args:
        message_bytes: Size of the largest content of a message: the assignment, or a chunk of weights.
    """
    most = min(message_bytes + _MESSAGE_OVERHEAD_BYTES, _MOST_MESSAGE_BYTES)
    return [
        ("grpc.max_receive_message_length", most),
        ("grpc.max_send_message_length", most),
        ("grpc.enable_http_proxy", 0),
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", 5_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        # Else a ping is given a minute, whatever keepalive says.
        ("grpc.http2.ping_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ]
