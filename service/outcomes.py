"""How an attempt can end."""

from dataclasses import dataclass
from typing import Final

from nablad.v1 import jobs_pb2 as jobs_pb

__all__ = ["CAUSES", "AttemptFailed", "AttemptLost", "Ending"]

CAUSES: Final = ("parameter_server", "worker", "ray", "service")
"""What can be lost of an attempt, as metrics write it."""


@dataclass(frozen=True)
class Ending:
    """The training has come to its end.

    Attributes:
        reason: Why, as a sentence.
        model_id: The model that was kept; empty if none was to be.
    """

    reason: str
    model_id: str = ""


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
        cause: What was lost, one of CAUSES.
        error_lines: The last lines that the lost process wrote to its log; empty if there are none.
    """

    def __init__(self, reason: str, *, cause: str, error_lines: str = "") -> None:
        super().__init__(reason)
        self.cause = cause
        self.error_lines = error_lines
