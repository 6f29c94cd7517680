"""Exceptions of the client and of the service.

    NablaError
    ├── InvalidRequestError      the request or a job file breaks rules; carries every violation
    ├── NotFoundError            no such job, data set or model
    ├── AlreadyExistsError       the name is taken
    ├── ConflictError            the state of the job, data set or model does not allow this
    ├── TooLargeError            more bytes or work than the service accepts
    ├── DataLossError            the stored data is gone or damaged
    ├── UnavailableError         the service cannot be reached, or is shutting down
    └── InternalError            the service failed; its log says more

Every message says what was expected, what came and what to do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "AlreadyExistsError",
    "ConflictError",
    "DataLossError",
    "InternalError",
    "InvalidRequestError",
    "NablaError",
    "NotFoundError",
    "TooLargeError",
    "UnavailableError",
    "Violation",
]


@dataclass(frozen=True)
class Violation:
    """One broken rule.

    Attributes:
        field: Path of the field as in a job file, such as ``cost.inner[1].layer``. Empty for the request as a whole.
        message: Value that came, values that are allowed and, for a name that looks misspelt, a suggestion.
    """

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def mistakes(violations: Sequence[Violation]) -> str:
    """Returns violations as text: a single one as it is, several with one line each."""
    if len(violations) == 1:
        return str(violations[0])
    return "\n".join([f"{len(violations)} mistakes:", *(f"  {violation}" for violation in violations)])


class NablaError(Exception):
    """Base of all errors that the service answers, and of failures to reach it."""


class InvalidRequestError(NablaError):
    """The request or a job file breaks rules.

    Attributes:
        violations: Broken rules, in the order of the fields.
    """

    def __init__(self, message: str, violations: Sequence[Violation] = ()) -> None:
        super().__init__(message)
        self.violations = tuple(violations)


class NotFoundError(NablaError):
    """There is no such job, data set or model."""


class AlreadyExistsError(NablaError):
    """The name is taken."""


class ConflictError(NablaError):
    """The state of the job, data set or model does not allow this."""


class TooLargeError(NablaError):
    """The request has more bytes or needs more work than the service accepts."""


class DataLossError(NablaError):
    """Stored data is gone or damaged; calling again does not help."""


class UnavailableError(NablaError):
    """The service cannot be reached, or is shutting down; the call may be repeated."""


class InternalError(NablaError):
    """The service failed because of a bug or its machine; its log says more."""
