"""Errors of the service.

    ServiceError                 a call is rejected, for one of the reasons in `Reason`; clients are told
    DamagedError                 something that is stored is gone, or not as it was stored: DATA_LOSS to clients
    ├── ModelFileError           the file of a model
    ├── CheckpointError          a checkpoint of a job
    ├── StoredDatasetError       the files of a registered data set
    └── DatabaseRowError         a row of the database
    AttemptFailed, AttemptLost   ways in which an attempt of a job ends without success

Whoever reads damaged data again ends the same way, so nothing tries again by itself.
"""

from collections.abc import Sequence
from enum import Enum

from nablad.errors import Violation
from nablad.v1 import jobs_pb2 as jobs_pb

__all__ = [
    "AttemptFailed",
    "AttemptLost",
    "CheckpointError",
    "DamagedError",
    "DatabaseRowError",
    "ModelFileError",
    "Reason",
    "ServiceError",
    "StoredDatasetError",
]


class Reason(Enum):
    """Reason why a call is rejected. Its name goes to the client as ErrorInfo.reason."""

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


class ServiceError(Exception):
    """A call is rejected.

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


class DamagedError(Exception):
    """Something stored cannot be used. The message is a sentence: what is missing or differs, and what to do.

    Attributes:
        metadata: What it is about, for programs: ids and paths by their names.
    """

    def __init__(self, sentence: str, **metadata: str) -> None:
        super().__init__(sentence)
        self.metadata = metadata


class ModelFileError(DamagedError):
    """The file of a model is gone, or not what was written."""


class CheckpointError(DamagedError):
    """A checkpoint cannot be used."""


class StoredDatasetError(DamagedError):
    """A file of a registered data set is gone, or not what was written."""


class DatabaseRowError(DamagedError):
    """A row of the database is not what was written, or the database's structure is damaged."""


class AttemptFailed(Exception):  # noqa: N818 (not an error of the program)
    """The job cannot succeed as it is: no attempt follows by itself. The message says why.

    Attributes:
        kind: Whether one would end the same way for ever, or only until something is mended.
        error_lines: The last lines that the failed process wrote to its log; empty if there are none.
    """

    def __init__(
        self,
        reason: str,
        *,
        kind: jobs_pb.FailureKind.ValueType = jobs_pb.FAILURE_KIND_ENVIRONMENT,
        error_lines: str = "",
    ) -> None:
        super().__init__(reason)
        self.kind = kind
        self.error_lines = error_lines


class AttemptLost(Exception):  # noqa: N818 (not an error of the program)
    """The processes of the attempt are gone; another attempt may succeed. The message says what happened.

    Attributes:
        cause: What was lost, one of `LOSS_CAUSES`.
        error_lines: The last lines that the lost process wrote to its log; empty if there are none.
    """

    def __init__(self, reason: str, *, cause: str, error_lines: str = "") -> None:
        super().__init__(reason)
        self.cause = cause
        self.error_lines = error_lines
