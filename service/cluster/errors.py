"""How Ray, or a process on it, can be gone."""

__all__ = ["ClusterError", "ClusterLostError", "ProcessError"]


class ClusterError(Exception):
    """Ray could not be started or reached; the message says why and what to do."""


class ClusterLostError(Exception):
    """Ray is away; the service tries to get it back. The message says why."""


class ProcessError(Exception):
    """A process of a fleet has failed; the message says how.

    Attributes:
        cause: What its program raised; None if the process itself is gone.
        error_lines: The last lines that it wrote to its log; empty if there are none.
    """

    def __init__(self, reason: str, cause: Exception | None, error_lines: str) -> None:
        super().__init__(reason)
        self.cause = cause
        self.error_lines = error_lines
