"""The checks that a result must pass before it may touch anything."""

import math

import numpy as np
from numpy.typing import NDArray

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.rounds import Round

__all__ = ["inspect"]

Vector = NDArray[np.floating]


def inspect(result: ps_pb.Result, round_: Round, parameters: Vector, version: int) -> ps_pb.Refusal.ValueType:
    """Why a result for a ticket of an open round must be refused; REFUSAL_UNSPECIFIED if nothing speaks against it."""
    ticket = result.ticket
    if round_.is_in(ticket.micro_batch):
        return ps_pb.REFUSAL_DUPLICATE
    if not ticket.version == result.version == version:
        return ps_pb.REFUSAL_WRONG_VERSION
    if not round_.counts_right(result):
        return ps_pb.REFUSAL_WRONG_COUNT
    if not math.isfinite(result.cost_sum):
        return ps_pb.REFUSAL_NOT_FINITE
    if round_.kind == ps_pb.TICKET_KIND_GRADIENT:
        return _inspect_gradient(result, parameters)
    return ps_pb.REFUSAL_UNSPECIFIED


def _inspect_gradient(result: ps_pb.Result, parameters: Vector) -> ps_pb.Refusal.ValueType:
    if len(result.gradient) != parameters.nbytes:
        return ps_pb.REFUSAL_WRONG_SIZE
    if not np.isfinite(np.frombuffer(result.gradient, parameters.dtype)).all():
        return ps_pb.REFUSAL_NOT_FINITE
    return ps_pb.REFUSAL_UNSPECIFIED
