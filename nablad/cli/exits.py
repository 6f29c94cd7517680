"""How `nabla` ends: its exit codes, and the sentences that go with an error."""

from collections.abc import Mapping
from enum import IntEnum

from nablad.errors import InvalidRequestError, NablaError, UnavailableError, mistakes


class ExitCode(IntEnum):
    """What a script learns from the end of `nabla`."""

    SUCCESS = 0
    REFUSED = 1
    INVALID = 2
    JOB_FAILED = 3
    JOB_CANCELLED = 4
    UNREACHABLE = 5
    INTERRUPTED = 130


MEANINGS: Mapping[ExitCode, str] = {
    ExitCode.SUCCESS: "success",
    ExitCode.REFUSED: "the service refused or failed",
    ExitCode.INVALID: "wrong usage, or an invalid job file, data file or path",
    ExitCode.JOB_FAILED: "the job failed",
    ExitCode.JOB_CANCELLED: "the job was cancelled",
    ExitCode.UNREACHABLE: "the service cannot be reached",
    ExitCode.INTERRUPTED: "interrupted",
}


class EndError(Exception):
    """`nabla` ends here, with these sentences on stderr.

    Attributes:
        exit_code: What it ends with.
    """

    def __init__(self, sentences: str, exit_code: ExitCode) -> None:
        super().__init__(sentences)
        self.exit_code = exit_code


def end_of(error: NablaError | OSError) -> EndError:
    """How `nabla` ends because of ``error``."""
    if isinstance(error, InvalidRequestError):
        return EndError(mistakes(error.violations) if error.violations else str(error), ExitCode.INVALID)
    if isinstance(error, UnavailableError):
        return EndError(str(error), ExitCode.UNREACHABLE)
    if isinstance(error, OSError):
        sentence = f"{error.strerror}." if error.strerror else str(error)
        return EndError(f"{error.filename}: {sentence}" if error.filename else sentence, ExitCode.INVALID)
    return EndError(str(error), ExitCode.REFUSED)
