"""Switches off what a parameter server and its workers do for metrics alone, while they are at work."""

from collections.abc import Callable
from ctypes import c_bool
from functools import wraps
from typing import Any, Final

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.progress.step_statistics import RoundTimer, StepFigures
from service.parameter_server.progress.telemetry import Totals
from service.parameter_server.shard.weights import Weights
from service.parameter_server.transport.members import Member, Members
from service.parameter_server.transport.worker_statistics import WorkerStatistics
from workers.runtime.process_usage import Usage, UsageMeter
from workers.runtime.stopwatch import Stopwatch
from workers.transport.frames import Report

__all__ = ["METHODS", "obey"]


def _mark(stopwatch: Stopwatch, _: str) -> None:
    """The time of a round is no figure alone: limits and speeds come from it."""
    stopwatch.mark = stopwatch._clock()  # half of what `lap` does


def _begin_without_look(timer: RoundTimer) -> None:
    timer.begun = timer._stopwatch.mark
    timer._before = ()


def _hear(member: Member, _: Report, now: float) -> float:
    member.heard = now
    return 0.0


def _update_without_norms(update: Callable[..., Any]) -> Callable[..., Any]:
    return lambda weights, addends, samples, **_: update(weights, addends, samples)


def _nothing(*_: object) -> None:
    return None


METHODS: Final[tuple[tuple[type, str, Callable[..., Any]], ...]] = (
    (Stopwatch, "lap", _mark),
    (RoundTimer, "begin", _begin_without_look),
    (UsageMeter, "read", lambda _: Usage(0.0, 0.0)),
    (StepFigures, "add", _nothing),
    (StepFigures, "tell", _nothing),
    (Totals, "message", lambda *_, **__: ps_pb.Telemetry()),
    (WorkerStatistics, "add", _nothing),
    (Members, "figures", lambda _: iter(())),
    (Member, "hear", _hear),
    (Weights, "update", _update_without_norms(Weights.update)),
)
"""Methods by their class, and what is left of each while nobody wants figures."""


def obey(wanted: c_bool) -> None:
    """From now on this process makes figures only while they are wanted."""
    for owner, name, rest in METHODS:
        setattr(owner, name, _only_while(wanted, getattr(owner, name), rest))


def _only_while(wanted: c_bool, method: Callable[..., Any], rest: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def switched(*arguments: Any, **options: Any) -> Any:
        return (method if wanted.value else rest)(*arguments, **options)

    return switched
