"""Memory of runs: what parameter server and workers share while they make steps without messages.

The layouts of control block, bell and slots are those of `workers/native/step.h`, which explains who may write what.
"""

import ctypes
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from workers.mathematics.sums import SampleSums
from workers.native.library import native_library
from workers.transport.frames import WORKER_STATISTICS
from workers.transport.shared_memory import SharedMemory

__all__ = ["BELL_BYTES", "CONTROL_BYTES", "RunEnd", "RunMemory", "WorkerMemory", "address_of", "worker_memory_bytes"]

CONTROL_BYTES = 192
BELL_BYTES = 64
_SLOT_BYTES = 64
_ALIGNMENT = 64
_STATISTICS_BYTES = 128

_READY, _OVER, _LATER = range(3)


def worker_memory_bytes(dtype: DTypeLike, size: int, slots: int) -> int:
    """Returns the bytes of the shared memory of one worker, which has room for so many results."""
    return slots * (_stride(dtype, size) + _SLOT_BYTES) + _STATISTICS_BYTES


class RunMemory(NamedTuple):
    """Shared memory of all runs of a job."""

    control: SharedMemory
    """Control block: written by the parameter server, read by workers."""
    bell: SharedMemory
    """Bell: written by all, decides nothing."""

    @classmethod
    def create(cls) -> "RunMemory":
        """Creates the memory of a parameter server.

        Raises:
            OSError: The system has no such memory.
        """
        control = SharedMemory.create("control", CONTROL_BYTES, others_may_write=False)
        return cls(control, SharedMemory.create("bell", BELL_BYTES, others_may_write=True))


class WorkerMemory:
    """Shared memory of one worker: its results and its statistics.

    Attributes:
        gradients: Vector of each slot, shape (size,).
        statistics: Statistics of the worker, in the order of WORKER_STATISTICS.
    """

    def __init__(self, memory: SharedMemory, dtype: DTypeLike, size: int, slots: int) -> None:
        """Lays out memory of at least `worker_memory_bytes`."""
        stride = _stride(dtype, size)
        self.gradients = [memory.vector(dtype, size, number * stride) for number in range(slots)]
        self.statistics: NDArray[np.floating] = memory.vector(
            np.float64, len(WORKER_STATISTICS), slots * (stride + _SLOT_BYTES)
        )
        # Through the vector, because the memory is mapped as long as one of its vectors is there.
        self._slots = memory.vector(np.uint8, slots * _SLOT_BYTES, slots * stride)

    def slot_address(self, slot: int) -> int:
        """Returns the address of a slot in this process."""
        return address_of(self._slots) + slot * _SLOT_BYTES


class RunEnd:
    """The worker's end of all runs of a job.

    Attributes:
        gradients: Vector of each slot, shape (size,).
        statistics: Statistics of the worker, in the order of WORKER_STATISTICS; the parameter server reads them.
    """

    def __init__(self, run_memory: RunMemory, memory: WorkerMemory) -> None:
        """Needs the native library."""
        library = native_library()
        assert library is not None  # noqa: S101 (the worker said so when it joined)
        self.gradients, self.statistics = memory.gradients, memory.statistics
        control = run_memory.control.vector(np.uint8, CONTROL_BYTES)
        bell = run_memory.bell.vector(np.uint8, BELL_BYTES)
        self._kept = control, bell, memory  # whose addresses are used
        pointer, number, real = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_double
        self._report, self._wait = library.nablad_step_report, library.nablad_step_wait
        self._report.argtypes = (pointer, pointer, pointer, number, number, real, number, number, real)
        self._report.restype = None
        self._wait.argtypes = (pointer, number, number, real)
        self._control, self._bell = address_of(control), address_of(bell)
        self._slots = [memory.slot_address(slot) for slot in range(len(memory.gradients))]

    def report_result(self, slot: int, run: int, step: int, sums: SampleSums, seconds: float) -> None:
        """Reports the result whose gradient lies in a slot.

        Args:
            slot: Number of the slot.
            run: Number of the run.
            step: Number of the step.
            sums: Sums over the samples of the part.
            seconds: Seconds of computation.
        """
        counts = sums.cost_sum, sums.samples, sums.correct_count
        self._report(self._control, self._bell, self._slots[slot], run, step, *counts, seconds)

    def wait_for_version(self, run: int, version: int, seconds: float) -> bool | None:
        """Waits until the weights have a version.

        Returns:
            True if they have; False if the run is over, and orders come over the connection; None after the time.
        """
        status = self._wait(self._control, run, version, seconds)
        return None if status == _LATER else status == _READY


def address_of(vector: NDArray[np.generic]) -> int:
    """Returns the address of a vector's first number in this process."""
    address: int = vector.ctypes.data
    return address


def _stride(dtype: DTypeLike, size: int) -> int:
    return -(-np.dtype(dtype).itemsize * size // _ALIGNMENT) * _ALIGNMENT
