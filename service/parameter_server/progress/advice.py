"""Advice: remedies for a training that goes wrong, from what spec and data sets say beforehand."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from workers import from_spec
from workers.mathematics.arrays import Scratch
from workers.mathematics.costs import cost_function
from workers.overflow import find_overflow
from workers.transport.tickets import Ticket

__all__ = ["Advice", "Baseline", "advice"]

_log = logging.getLogger(__name__)

_COSTS_OF_DISTANCE: Final = (
    spec_pb.COST_FUNCTION_MEAN_SQUARED_ERROR,
    spec_pb.COST_FUNCTION_MEAN_ABSOLUTE_ERROR,
    spec_pb.COST_FUNCTION_HUBER,
)
# Above this, targets are called large: a network begins with outputs of about 1.
_LARGE_TARGET: Final = 100.0


class Baseline(NamedTuple):
    """A network that always answers the same."""

    answer: float
    """Middle of the targets."""
    cost: float
    """Upper bound of its mean cost per sample: no target is further away than the smallest and the largest one."""


def _unexplained(*_: object) -> str:
    return ""


@dataclass(frozen=True)
class Advice:
    """Advice for one job.

    Attributes:
        remedy: End of a sentence: how to keep the job from diverging.
        baseline: Cost of always answering the same; None where it is not known.
        explain: Returns the end of a sentence: why the result of a ticket, computed with these weights, is not finite;
            empty if the training is at fault.
    """

    remedy: str
    baseline: Baseline | None = None
    explain: Callable[[Ticket, NDArray[np.floating]], str] = _unexplained


def advice(assignment: ps_pb.Assignment) -> Advice:
    """Returns the advice for a job."""
    return Advice(_remedy(assignment), _baseline(assignment), partial(_explain, assignment))


def _baseline(assignment: ps_pb.Assignment) -> Baseline | None:
    """Returns the baseline of costs that grow with the distance from the target alone."""
    spec, dataset = assignment.spec, assignment.train.dataset
    if spec.cost.function not in _COSTS_OF_DISTANCE or spec.cost.inner or not dataset.HasField("target_minimum"):
        return None
    middle = dataset.target_minimum / 2 + dataset.target_maximum / 2
    network = from_spec.network(spec)
    furthest, at, cost, *scratch = np.full((6, 1, 1), dataset.target_maximum - middle)
    at.fill(0)
    with np.errstate(over="ignore"):
        cost_function(network.cost, network.huber_delta).value(furthest, at, cost, Scratch(*scratch))
    return Baseline(middle, dataset.target_columns * cost.item())


def _remedy(assignment: ps_pb.Assignment) -> str:
    spec, dataset = assignment.spec, assignment.train.dataset
    parts = [f"give a training.learning_rate below {spec.training.learning_rate:g}"]
    if spec.data.scaling in (spec_pb.SCALING_UNSPECIFIED, spec_pb.SCALING_NONE):
        parts.append("data.scaling if features are large")
    largest = max(abs(dataset.target_minimum), abs(dataset.target_maximum))
    if not dataset.classes and largest > _LARGE_TARGET:
        parts.append(f"a larger unit for the targets, which go up to {largest:.3g}")
    *firsts, last = parts
    return f"{', '.join(firsts)} and {last}" if firsts else last


def _explain(assignment: ps_pb.Assignment, ticket: Ticket, weights: NDArray[np.floating]) -> str:
    try:
        found = find_overflow(assignment, ticket, weights)
    except (OSError, ValueError) as error:
        _log.warning("the rows of a result that is not finite cannot be read: %s", error)
        found = ""
    if not found and ticket.step == 0:
        return "nothing is trained yet, so look for numbers in the data set, and first weights, that are too large"
    return found
