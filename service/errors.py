"""What the service answers when it cannot do what was asked: the catalogue of reasons, and their gRPC statuses."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from nablad.errors import Violation

__all__ = ["Reason", "ServiceError"]

_DOMAIN = "nablad"
# Trailing metadata may have 8 KiB. The message goes twice: in the status, and with each byte as up to three beside it.
_MOST_STATUS_BYTES = 5000
_MOST_MESSAGE_BYTES = 800
_MOST_VIOLATIONS = 25
# When it may be worth to try again what came with too much else.
_RETRY_SECONDS = 1
_MOST_PART_BYTES = 250


class Reason(Enum):
    """Why a call is refused. The name goes to the client as ErrorInfo.reason."""

    INVALID_SPEC = "a job spec breaks rules"
    INVALID_REQUEST = "a request makes no sense"
    INVALID_DATA = "a file is not what it has to be"
    NOT_FOUND = "there is no such thing"
    ALREADY_EXISTS = "the name is taken"
    WRONG_STATE = "the thing's state does not allow it"
    IN_USE = "something that goes on needs it"
    TOO_LARGE = "more bytes than the service takes"
    BUSY = "more at a time than the service takes"
    DAMAGED = "something that the service keeps is gone, or not what was stored"
    GOING_AWAY = "the service is shutting down"


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


class ServiceError(Exception):
    """A call is refused.

    Attributes:
        reason: Why, for programs.
        sentence: Why, for people: what was expected, what came, what to do.
        violations: The broken rules, if there are several things to say.
        metadata: Ids that the sentence is about.
    """

    def __init__(
        self,
        reason: Reason,
        sentence: str,
        *,
        violations: Sequence[Violation] = (),
        **metadata: str,
    ) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence
        self.violations = tuple(violations)
        self.metadata = metadata

    def status(self) -> status_pb2.Status:
        """The error as google.rpc.Status with ErrorInfo and, if there are violations, BadRequest.

        The first violations are in the message too, for clients that read nothing else.
        """
        metadata = {key: _cut(value) for key, value in self.metadata.items()}
        info = error_details_pb2.ErrorInfo(reason=self.reason.name, domain=_DOMAIN, metadata=metadata)
        status = status_pb2.Status(
            code=_STATUS_CODES[self.reason], message=_message(self.sentence, self.violations), details=[_pack(info)]
        )
        if self.reason == Reason.BUSY:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.seconds = _RETRY_SECONDS
            status.details.append(_pack(retry))
        if self.violations:
            status.details.append(_pack(_bad_request(self.violations, _MOST_STATUS_BYTES - status.ByteSize())))
        return status


def _message(sentence: str, violations: Sequence[Violation]) -> str:
    """The sentence with as many of the violations as there is room for, and how many more there are."""
    told = [_cut(str(each)) for each in violations[:_MOST_VIOLATIONS]]
    for count in range(len(told), 0, -1):
        if len((message := _listed(sentence, told[:count], len(violations))).encode()) <= _MOST_MESSAGE_BYTES:
            return message
    return _cut(sentence, _MOST_MESSAGE_BYTES)


def _listed(sentence: str, told: Sequence[str], count: int) -> str:
    """The sentence with some of `count` violations."""
    if count == 1:
        return f"{sentence}: {told[0]}"
    parts = [f"({number}) {violation}" for number, violation in enumerate(told, start=1)]
    more = [f"and {count - len(told)} more"] if count > len(told) else []
    return f"{sentence}: {'; '.join([*parts, *more])}"


def _bad_request(violations: Sequence[Violation], room_bytes: int) -> error_details_pb2.BadRequest:
    """As many of the violations as there is room for, and how many more there are."""
    told = [_field_violation(each) for each in violations[:_MOST_VIOLATIONS]]
    while sum(each.ByteSize() for each in told) > room_bytes:
        told.pop()
    if len(violations) > len(told):
        told.append(_field_violation(Violation("", f"and {len(violations) - len(told)} more")))
    return error_details_pb2.BadRequest(field_violations=told)


def _field_violation(violation: Violation) -> error_details_pb2.BadRequest.FieldViolation:
    return error_details_pb2.BadRequest.FieldViolation(field=_cut(violation.field), description=_cut(violation.message))


def _cut(text: str, most_bytes: int = _MOST_PART_BYTES) -> str:
    """The text as it is, or its beginning if it takes more bytes in UTF-8."""
    encoded = text.encode()
    if len(encoded) <= most_bytes:
        return text
    return encoded[: most_bytes - len("…".encode())].decode(errors="ignore") + "…"


def _pack(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
