"""Native step core of a shard: makes many steps of a run in C, with the bits of the Python path.

`workers/native/README.md` explains the protocol between server and workers.
"""

import ctypes
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.parameter_server.shard.norms import Norms, many_gradient_norms
from service.parameter_server.shard.shard import Shard
from workers.mathematics.sums import SampleSums
from workers.native.library import native_library
from workers.transport.run_memory import address_of

__all__ = ["CoreReport", "MadeSteps", "RunPart", "Status", "StepCore", "StepsWanted"]

# `enum nablad_rule` and NABLAD_FACTORS of workers/native/update.h.
_RULES: Final = ("sgd", "momentum", "nesterov", "adam")
_FACTORS: Final = 8
# `struct nablad_record` of workers/native/step_server.c.
_RECORD: Final = np.dtype(
    [("cost_sum", "f8"), ("samples", "u8"), ("correct", "u8")]
    + [(name, "f8") for name in ("seconds", "waiting", "inspecting", "updating", "dealing", "computed")]
)
_SPENT: Final = ["waiting", "inspecting", "updating", "dealing"]
# Steps of one call: some more than the last one made, because numbers are prepared for each.
_LEAST_STEPS: Final = 8
_MOST_STEPS: Final = 256


class Status(IntEnum):
    """End of a call that makes steps."""

    DONE = 0
    """All steps are made."""
    LATER = 1
    """The time is over."""
    INTERRUPTED = 2
    """Another thread wants something."""
    REJECTED = 3
    """A result of the next step may not count; it has changed nothing."""


class RunPart(NamedTuple):
    """Place of the results of one part of each step; addresses are of this process."""

    slot: int
    gradient: int
    owner: int
    """Number of its worker."""


@dataclass(frozen=True)
class StepsWanted:
    """Steps that may be made in one call: all of one epoch.

    Attributes:
        measured: For each step, whether its norms are wanted.
        samples: Number of samples of each part, in all steps but the last one.
        last_samples: Number of samples of each part in the last one.
        publish_last: Whether workers may go on after the last one; otherwise they wait for `publish_version`.
    """

    measured: Sequence[bool]
    samples: Sequence[int]
    last_samples: Sequence[int]
    publish_last: bool


@dataclass(frozen=True)
class MadeSteps:
    """Steps that were made, one after the other.

    Attributes:
        sums: Sums over the samples of each step.
        seconds: Seconds of each step, from the update before to its own.
        norms: Norms of those updates in which they were wanted, by their place.
    """

    sums: list[SampleSums]
    seconds: list[float]
    norms: dict[int, Norms]
    _records: NDArray[Any]

    def times(self, place: int) -> tuple[tuple[float, ...], float]:
        """Returns the parameter server's seconds in a step by ACTIVITIES of its statistics, and the slowest worker's.

        An update includes the reduction.
        """
        waiting, inspecting, updating, dealing, computed = self._records[place].tolist()[4:]
        return (waiting, 0.0, inspecting, 0.0, updating, dealing, 0.0), computed


class CoreReport(NamedTuple):
    """Outcome of a call that makes steps."""

    status: Status
    made: MadeSteps
    spent: Mapping[str, float]
    """Seconds by activity in this call."""


class StepCore:
    """The native core of a shard, for one run after the other.

    Attributes:
        times: End of the last activity, and of the last update, by the clock of `time.perf_counter`; both may be set.
        most_steps: Number of steps that one call should make at most.
    """

    def __init__(self, shard: Shard, control: NDArray[Any], bell: NDArray[Any], threads: int) -> None:
        """Makes the core; needs the native library.

        Args:
            shard: Its weights and moments are changed in place by the calls that make steps.
            control: Bytes of the control block, which workers read.
            bell: Bytes of the bell, which workers write.
            threads: Number of threads that update a large vector.

        Raises:
            MemoryError: There is no room for it.
        """
        library = native_library()
        assert library is not None  # noqa: S101 (whoever makes a core has looked)
        weights = shard.weights
        starts = _numbers(weights.layer_starts)
        moments = [address_of(moment) for moment in weights.moments] + [None, None]
        self._library = library
        self._shard = shard
        self._kept = control, bell  # which the core knows by their addresses
        library.nablad_core_new.restype = ctypes.c_void_p
        library.nablad_core_lag.restype = ctypes.c_double
        core = library.nablad_core_new(
            ctypes.c_void_p(address_of(control)),
            ctypes.c_void_p(address_of(bell)),
            ctypes.c_void_p(address_of(weights.parameters)),
            ctypes.c_void_p(moments[0]),
            ctypes.c_void_p(moments[1]),
            ctypes.c_uint64(weights.parameters.size),
            weights.parameters.dtype == np.float64,
            _RULES.index(weights.optimizer.name),
            starts.ctypes,
            ctypes.c_uint64(len(starts)),
            threads,
        )
        if not core:
            raise MemoryError("there is no memory for the native step core")
        self._core = ctypes.c_void_p(core)
        # Not when the interpreter ends, because the thread that makes the steps may still be at work then.
        weakref.finalize(self, library.nablad_core_free, self._core).atexit = False
        self._records = np.zeros(_MOST_STEPS, _RECORD)
        self._squares = np.empty((_MOST_STEPS, weights.layers))
        self.most_steps = _LEAST_STEPS
        self.times = np.zeros(2)

    def begin_run(self, run: int, parts: Sequence[RunPart], worker_spin: float, server_spin: float) -> None:
        """Begins a run with the present weights: workers may compute.

        Args:
            run: Number of the run; no other one of this core had it.
            parts: Where the results of each part come.
            worker_spin: Seconds that a worker polls for the next version before it sleeps.
            server_spin: Seconds that the core polls for results before it sleeps.

        Raises:
            MemoryError: There is no room for it.
        """
        slots, gradients = ((ctypes.c_void_p * len(parts))(*column) for column in list(zip(*parts, strict=True))[:2])
        owners = _numbers([part.owner for part in parts])
        self._records[0] = 0
        begun = self._library.nablad_core_begin(
            self._core,
            ctypes.c_uint64(run),
            ctypes.c_uint64(self._shard.version),
            ctypes.c_uint64(len(parts)),
            slots,
            gradients,
            owners.ctypes,
            ctypes.c_double(worker_spin),
            ctypes.c_double(server_spin),
        )
        if not begun:
            raise MemoryError("there is no memory for a run of the native step core")

    def make_steps(self, wanted: StepsWanted, seconds: float) -> CoreReport:
        """Makes steps for about so many seconds, or until something needs the caller; releases the interpreter's lock.

        Where not all are made, workers may go on. At most `most_steps` may be wanted.
        """
        measured, steps = np.array(wanted.measured, np.uint8), len(wanted.measured)
        samples, last_samples = _numbers(wanted.samples), _numbers(wanted.last_samples)
        factors = self._factors([int(samples.sum())] * (steps - 1) + [int(last_samples.sum())])
        before = self._spent(1)
        made = ctypes.c_uint64()
        self._library.nablad_core_set_times(self._core, self.times.ctypes)
        status = self._library.nablad_core_run(
            self._core,
            ctypes.c_uint64(steps),
            samples.ctypes,
            last_samples.ctypes,
            factors.ctypes,
            measured.ctypes,
            self._records.ctypes,
            self._squares.ctypes,
            wanted.publish_last,
            ctypes.c_double(seconds),
            ctypes.byref(made),
        )
        self._library.nablad_core_times(self._core, self.times.ctypes)
        self.most_steps = max(_LEAST_STEPS, min(2 * made.value, _MOST_STEPS))
        spent = dict(zip(_SPENT, (self._spent(made.value + 1) - before).tolist(), strict=True))
        return CoreReport(Status(status), self._take_records(made.value, measured), spent)

    def publish_version(self) -> None:
        """Lets the workers compute with the present weights."""
        self._library.nablad_core_publish(self._core)

    def end_run(self) -> None:
        """Ends the run: workers look for orders on their connections."""
        self._library.nablad_core_end(self._core)

    def interrupt(self) -> None:
        """Makes a call that makes steps return soon; may be called by any thread."""
        self._library.nablad_core_interrupt(self._core)

    def has_result(self, part: int) -> bool:
        """Returns whether the result of a part for the present step has arrived."""
        return bool(self._library.nablad_core_has_result(self._core, ctypes.c_uint64(part)))

    def lag(self, part: int) -> float:
        """Returns the seconds that a part's results came behind the first ones of their steps, since the run began."""
        lag: float = self._library.nablad_core_lag(self._core, ctypes.c_uint64(part))
        return lag

    def _spent(self, records: int) -> NDArray[np.float64]:
        """Returns the seconds by activity in the first records."""
        fields = self._records[:records]
        return np.array([fields[name].sum() for name in _SPENT])

    def _factors(self, samples: Sequence[int]) -> NDArray[np.float64]:
        """Returns the numbers of the next updates; each is over so many samples."""
        weights = self._shard.weights
        first = weights.updates + 1
        factors = np.zeros((len(samples), _FACTORS))
        for number, count in enumerate(samples):
            update = weights.optimizer.update_factors(first + number, count)
            factors[number, : len(update)] = update
        return factors

    def _take_records(self, made: int, measured: NDArray[np.uint8]) -> MadeSteps:
        """Returns the steps that were made, and keeps what the next one has taken so far."""
        records = self._records[:made].copy()
        sums = list(map(SampleSums, *(records[field].tolist() for field in ("cost_sum", "samples", "correct"))))
        places = np.flatnonzero(measured[:made])
        norms = many_gradient_norms(self._squares[places], records["samples"][places].astype(np.float64))
        begun = self._records[made : made + 1].copy()
        self._records[: made + 1] = 0
        self._records[: len(begun)] = begun
        self._shard.count_updates(made)
        return MadeSteps(sums, records["seconds"].tolist(), dict(zip(places.tolist(), norms, strict=True)), records)


def _numbers(values: Sequence[int]) -> NDArray[np.uint64]:
    return np.array(values, np.uint64)
