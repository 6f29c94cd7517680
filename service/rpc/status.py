"""Statuses of gRPC: errors of the service as google.rpc.Status, of a size that a client can receive."""

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from nablad.errors import Violation
from service.errors import Reason, ServiceError

__all__ = ["status_of"]

_DOMAIN = "nablad"
# Trailing metadata may have 8 KiB. The message is sent twice, once in the status and once percent-encoded.
_MOST_STATUS_BYTES = 5000
_MOST_MESSAGE_BYTES = 800
_MOST_VIOLATIONS = 25
# Delay after which a client may repeat a call that was rejected as BUSY.
_RETRY_SECONDS = 1
_MOST_PART_BYTES = 250


_STATUS_CODES: Mapping[Reason, int] = {
    Reason.INVALID_SPEC: code_pb2.INVALID_ARGUMENT,
    Reason.INVALID_REQUEST: code_pb2.INVALID_ARGUMENT,
    Reason.INVALID_DATA: code_pb2.INVALID_ARGUMENT,
    Reason.NOT_FOUND: code_pb2.NOT_FOUND,
    Reason.ALREADY_EXISTS: code_pb2.ALREADY_EXISTS,
    Reason.WRONG_STATE: code_pb2.FAILED_PRECONDITION,
    Reason.IN_USE: code_pb2.FAILED_PRECONDITION,
    Reason.TOO_LARGE: code_pb2.RESOURCE_EXHAUSTED,
    Reason.BUSY: code_pb2.RESOURCE_EXHAUSTED,
    Reason.DAMAGED: code_pb2.DATA_LOSS,
    Reason.GOING_AWAY: code_pb2.UNAVAILABLE,
}


def status_of(error: ServiceError) -> status_pb2.Status:
    """Returns an error as google.rpc.Status with ErrorInfo and, if there are violations, BadRequest.

    The first violations are in the message too, for clients that read nothing else.
    """
    metadata = {key: _cut(value) for key, value in error.metadata.items()}
    info = error_details_pb2.ErrorInfo(reason=error.reason.name, domain=_DOMAIN, metadata=metadata)
    status = status_pb2.Status(
        code=_STATUS_CODES[error.reason], message=_message(error.sentence, error.violations), details=[_pack(info)]
    )
    if error.reason == Reason.BUSY:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.seconds = _RETRY_SECONDS
        status.details.append(_pack(retry))
    if error.violations:
        status.details.append(_pack(_bad_request(error.violations, _MOST_STATUS_BYTES - status.ByteSize())))
    return status


def _message(sentence: str, violations: Sequence[Violation]) -> str:
    """Returns the sentence with as many violations as there is room for, and the number of the others."""
    shown = [_cut(str(each)) for each in violations[:_MOST_VIOLATIONS]]
    for count in range(len(shown), 0, -1):
        if len((message := _listed(sentence, shown[:count], len(violations))).encode()) <= _MOST_MESSAGE_BYTES:
            return message
    return _cut(sentence, _MOST_MESSAGE_BYTES)


def _listed(sentence: str, shown: Sequence[str], count: int) -> str:
    """Returns the sentence with the first of `count` violations."""
    if count == 1:
        return f"{sentence}: {shown[0]}"
    parts = [f"({number}) {violation}" for number, violation in enumerate(shown, start=1)]
    more = [f"and {count - len(shown)} more"] if count > len(shown) else []
    return f"{sentence}: {'; '.join([*parts, *more])}"


def _bad_request(violations: Sequence[Violation], room_bytes: int) -> error_details_pb2.BadRequest:
    """Returns as many violations as there is room for, and the number of the others."""
    shown = [_field_violation(each) for each in violations[:_MOST_VIOLATIONS]]
    while sum(each.ByteSize() for each in shown) > room_bytes:
        shown.pop()
    if len(violations) > len(shown):
        shown.append(_field_violation(Violation("", f"and {len(violations) - len(shown)} more")))
    return error_details_pb2.BadRequest(field_violations=shown)


def _field_violation(violation: Violation) -> error_details_pb2.BadRequest.FieldViolation:
    return error_details_pb2.BadRequest.FieldViolation(field=_cut(violation.field), description=_cut(violation.message))


def _cut(text: str, most_bytes: int = _MOST_PART_BYTES) -> str:
    """Returns the text, cut if it takes more bytes in UTF-8."""
    encoded = text.encode()
    if len(encoded) <= most_bytes:
        return text
    return encoded[: most_bytes - len("…".encode())].decode(errors="ignore") + "…"


def _pack(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
