"""Contestants: the service, its rivals and the limits, one row each; and the tolerance between their costs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.errors import CostsDisagreeError
from benchmarks.works import WORKERS
from nablad.v1 import job_spec_pb2

__all__ = [
    "CONTESTANTS",
    "OPTIONAL",
    "REFERENCE",
    "SUBJECT",
    "Contestant",
    "Tolerance",
    "check_costs",
    "largest_difference",
]


@dataclass(frozen=True)
class Tolerance:
    """Tolerance of a cost against that of the reference.

    Attributes:
        relative: To the reference.
        absolute: On top of that.
    """

    relative: float
    absolute: float = 0.0

    def allows(self, cost: float, reference: float) -> bool:
        """Returns whether a cost is near enough to that of the reference."""
        return abs(cost - reference) <= self.relative * abs(reference) + self.absolute


def largest_difference(runs: Iterable[Sequence[float]], reference: Sequence[float]) -> float:
    """Returns the largest relative difference from the reference, over all epochs of all runs."""
    return max(abs(cost / expected - 1) for costs in runs for cost, expected in zip(costs, reference, strict=True))


def check_costs(who: str, runs: Iterable[Sequence[float]], reference: Sequence[float], tolerance: Tolerance) -> None:
    """Holds every epoch of every run against the reference.

    Raises:
        CostsDisagreeError: One of them is too far from it.
    """
    for costs in runs:
        if len(costs) != len(reference):
            raise CostsDisagreeError(f"{who}: there should be {len(reference)} epochs, but are {len(costs)}.")
        for epoch, (cost, expected) in enumerate(zip(costs, reference, strict=True), start=1):
            if not tolerance.allows(cost, expected):
                raise CostsDisagreeError(
                    f"{who}: the training cost of epoch {epoch} should be {expected:.8g} to {tolerance.relative:g} of "
                    f"its size, but is {cost:.8g}. This is not the same work, so there is nothing to compare."
                )


# All add in different orders, so their float32 weights part in the last bits.
_ROUNDING = Tolerance(relative=2e-5)
# scikit-learn draws its 10 outputs away from 0 and 1 by the ε of float32 before it takes their logarithm.
_CLIPPED = Tolerance(relative=2e-5, absolute=10 * float(np.finfo(np.float32).eps))


@dataclass(frozen=True)
class Contestant:
    """One of those that do the same work.

    Attributes:
        name: For the tables of works and requirements, and the results file.
        title: For people.
        module: Of `benchmarks.peers`; empty for the service.
        processes: That compute at the same time; of the service, its workers.
        threads: Of the BLAS in each of them.
        transport: Of the service.
        tolerance: How far its costs may be from those of the reference.
    """

    name: str
    title: str
    module: str = ""
    processes: int = 1
    threads: int = 1
    transport: job_spec_pb2.Transport.ValueType = job_spec_pb2.TRANSPORT_AUTO
    tolerance: Tolerance = _ROUNDING


_ROWS = (
    Contestant("numpy", "numpy by hand, 1 thread", "numpy_single"),
    Contestant("blas-limit", f"limit of the BLAS, {WORKERS} processes", "blas_limit", processes=WORKERS),
    Contestant(
        "shared-all-reduce", f"all-reduce in shared memory, {WORKERS} processes", "shared_all_reduce", processes=WORKERS
    ),
    Contestant("torch-1", "torch, 1 thread", "torch_single"),
    Contestant("torch-2", "torch, 2 threads", "torch_single", threads=2),
    Contestant("torch-ddp", f"torch DDP over gloo, {WORKERS} processes", "torch_ddp", processes=WORKERS),
    Contestant("ray-actors", f"Ray actors and object store, {WORKERS} workers", "ray_actors", processes=WORKERS),
    Contestant("scikit-learn", "scikit-learn, 1 thread", "scikit_learn", tolerance=_CLIPPED),
    Contestant("loopback-limit", f"limit of TCP, {WORKERS} processes", "loopback_limit", processes=WORKERS),
    Contestant("service", f"nablad, {WORKERS} workers", processes=WORKERS),
    Contestant("service-1", "nablad, 1 worker"),
    Contestant(
        "service-inline",
        f"nablad, {WORKERS} workers, inline",
        processes=WORKERS,
        transport=job_spec_pb2.TRANSPORT_INLINE,
    ),
)

CONTESTANTS = {contestant.name: contestant for contestant in _ROWS}

# Whose costs the others have to agree with.
REFERENCE = "numpy"
# The contestant that all others are compared with.
SUBJECT = "service"
# Those that a run can do without.
OPTIONAL = tuple(name for name in CONTESTANTS if name not in {REFERENCE, SUBJECT})
