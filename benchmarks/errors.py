"""Why a benchmark ends without results.

BenchmarkError
├── CostsDisagreeError    a contestant did other work than the rest
├── JobError              a job of the service did not succeed
├── PeerError             a rival did not get to its end
└── TooFewRightError      the network has not learned what it should have
"""

__all__ = ["BenchmarkError", "CostsDisagreeError", "JobError", "PeerError", "TooFewRightError"]


class BenchmarkError(Exception):
    """There is nothing to compare, or nothing worth it; says why as a sentence."""


class CostsDisagreeError(BenchmarkError):
    """A contestant did other work than the rest."""


class JobError(BenchmarkError):
    """A job of the service did not succeed."""


class PeerError(BenchmarkError):
    """A rival did not get to its end; carries the end of its log."""


class TooFewRightError(BenchmarkError):
    """The network has not learned what it should have."""
