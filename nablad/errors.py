"""What can go wrong, as exceptions.

    NablaError
    ├── InvalidRequestError      the request or a job file breaks rules; carries every violation
    ├── NotFoundError            no such job, data set or model
    ├── AlreadyExistsError       the name is taken
    ├── ConflictError            the thing is in a state that does not allow this
    ├── TooLargeError            more bytes or work than the service takes
    ├── DataLossError            what the service kept of it is gone or damaged
    ├── UnavailableError         the service cannot be reached, or is going away
    └── InternalError            the service failed; its log says more

Every message is a sentence that says what was expected, what came and what to do.
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
        field: Path of the field, as in a job file: ``training.epochs``, ``cost.inner[1].layer``. Empty when the request
            as a whole is meant.
        message: What came, what is allowed and, for a name that looks misspelt, what was probably meant.
    """

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def mistakes(violations: Sequence[Violation]) -> str:
    """Returns violations as people read them: a single one as it is, several each on a line of its own."""
    if len(violations) == 1:
        return str(violations[0])
    return "\n".join([f"{len(violations)} mistakes:", *(f"  {violation}" for violation in violations)])


class NablaError(Exception):
    """Anything that the service, or the way to it, answers instead of doing what was asked."""


class InvalidRequestError(NablaError):
    """The request or a job file breaks rules.

    Attributes:
        violations: All of them, in the order of the fields.
    """

    def __init__(self, message: str, violations: Sequence[Violation] = ()) -> None:
        super().__init__(message)
        self.violations = tuple(violations)


class NotFoundError(NablaError):
    """There is no such job, data set or model."""


class AlreadyExistsError(NablaError):
    """The name is taken."""


class ConflictError(NablaError):
    """The job, data set or model is in a state that does not allow this."""


class TooLargeError(NablaError):
    """More bytes or work than the service takes."""


class DataLossError(NablaError):
    """What the service kept is gone, or not what was stored; calling again does not help."""


class UnavailableError(NablaError):
    """The service cannot be reached, or is going away; the call may be repeated."""


class InternalError(NablaError):
    """The service failed at something that it should have been able to do; its log says more."""
