"""The checks that a result must pass before it may touch anything."""

import math

import numpy as np
from numpy.typing import NDArray

from service.parameter_server.scheduling.rounds import Round
from workers.transport.tickets import Rejection, Result, TicketKind

__all__ = ["all_finite", "validate_result"]

Vector = NDArray[np.floating]


def validate_result(result: Result, round_: Round, parameters: Vector, version: int) -> Rejection | None:
    """Why a worker's result for a ticket that it holds must be refused; None if nothing speaks against it."""
    if result.version != version:
        return Rejection.WRONG_VERSION
    if not result.sums.can_be_of(round_.part_samples[result.ticket.micro_batch]):
        return Rejection.WRONG_COUNT
    if not math.isfinite(result.sums.cost_sum):
        return Rejection.NOT_FINITE
    if round_.kind == TicketKind.GRADIENT:
        return _inspect_gradient(result.gradient, parameters)
    return None


def _inspect_gradient(gradient: Vector | None, parameters: Vector) -> Rejection | None:
    if gradient is None or gradient.shape != parameters.shape or gradient.dtype != parameters.dtype:
        return Rejection.WRONG_SIZE
    if not all_finite(gradient):
        return Rejection.NOT_FINITE
    return None


def all_finite(vector: Vector) -> bool:
    """Whether all numbers are finite: they are if the sum of their squares is, which costs one pass and no memory."""
    return math.isfinite(np.dot(vector, vector)) or bool(np.isfinite(vector).all())
