"""How an attempt can end, other than well."""

__all__ = ["AttemptFailed", "AttemptLost"]


class AttemptFailed(Exception):  # noqa: N818 (not an error of the program)
    """The job cannot succeed; another attempt would end the same way. The message says why."""


class AttemptLost(Exception):  # noqa: N818 (not an error of the program)
    """The processes of the attempt are gone; another attempt may succeed. The message says what happened."""
