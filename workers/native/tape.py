"""Tapes: sequences of numpy operations that are recorded once, and played again in C with the same arrays.

A step of a small network consists of dozens of numpy calls, each of which takes longer for its Python side than for its
numbers. A tape calls the inner loops that numpy itself would call, with the same arguments, so it has the same bits
with any release and on any CPU. `numpy/ufuncobject.h` documents the loops and the structure that has them.
"""

import ctypes
import logging
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.native.library import native_library

__all__ = ["record_tape"]

_log = logging.getLogger(__name__)

# NABLAD_OPERANDS, NABLAD_LENGTHS and NABLAD_STEPS of tape.h.
_OPERANDS, _LENGTHS, _STEPS = 3, 4, 9


class _Operation(ctypes.Structure):
    """`struct nablad_operation` of tape.h."""

    _fields_ = (
        ("loop", ctypes.c_void_p),
        ("data", ctypes.c_void_p),
        ("arguments", ctypes.c_void_p * _OPERANDS),
        ("lengths", ctypes.c_ssize_t * _LENGTHS),
        ("steps", ctypes.c_ssize_t * _STEPS),
        ("repeats", ctypes.c_ssize_t),
        ("strides", ctypes.c_ssize_t * _OPERANDS),
    )


class _UFunc(ctypes.Structure):
    """Beginning of numpy's PyUFuncObject."""

    _fields_ = (
        ("references", ctypes.c_ssize_t),
        ("type", ctypes.c_void_p),
        *((name, ctypes.c_int) for name in ("inputs", "outputs", "arguments", "identity")),
        ("loops", ctypes.POINTER(ctypes.c_void_p)),
        ("data", ctypes.POINTER(ctypes.c_void_p)),
        ("count", ctypes.c_int),
        ("reserved", ctypes.c_int),
        ("name", ctypes.c_char_p),
    )


class _NotRecordableError(Exception):
    """An operation is none that a tape can play."""


def record_tape(
    function: Callable[[Callable[[NDArray[Any]], NDArray[Any]]], None], results: Sequence[NDArray[Any]]
) -> Callable[[], None] | None:
    """Calls a function, and returns another one that does the same to the same arrays.

    Args:
        function: Takes a function that returns the stand-in of an array. It uses stand-ins of all arrays whose
            elements change from call to call, by ufuncs with ``out``, their reductions, and `np.copyto`, and in an
            order that does not depend on the elements.
        results: Arrays that the function writes; they decide whether the tape does the same.

    Returns:
        A function without arguments; None if there is no native library, or the function does what no tape can play.
    """
    library = native_library()
    if library is None:
        return None
    recorder = _Recorder()
    try:
        function(recorder.stand_in)
        expected = [array.tobytes() for array in results]
        play = recorder.tape(library)
        play()
    except _NotRecordableError as reason:
        _log.info("no tape is used: %s", reason)
        return None
    if [array.tobytes() for array in results] != expected:
        _log.warning("no tape is used: it has other bits than numpy %s; please report this", np.__version__)
        return None
    return play


class _StandIn(np.ndarray):
    """View of an array that reports the operations on it."""

    recorder: "_Recorder"

    def __array_finalize__(self, base: Any) -> None:
        if isinstance(base, _StandIn):
            self.recorder = base.recorder

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        (out,) = options.pop("out", (None,))
        if out is None:
            raise _NotRecordableError(f"{ufunc.__name__} without out")
        self.recorder.add(ufunc, method, [_plain(each) for each in inputs], _plain(out), options)
        return out

    def __array_function__(self, function: Any, _: Any, arguments: Any, options: Any) -> Any:
        if function is not np.copyto or options:
            raise _NotRecordableError(function.__name__)
        target, source = map(_plain, arguments)
        self.recorder.add(np.positive, "__call__", [source], target, {})


class _Recorder:
    """Records operations, and does them."""

    def __init__(self) -> None:
        self._operations: list[_Operation] = []
        self._kept: list[NDArray[Any]] = []  # whose addresses are on the tape

    def stand_in(self, array: NDArray[Any]) -> NDArray[Any]:
        """Returns a view of an array whose operations are recorded."""
        view = array.view(_StandIn)
        view.recorder = self
        return view

    def tape(self, library: ctypes.CDLL) -> Callable[[], None]:
        """Returns a function that plays all that was recorded."""
        tape = (_Operation * len(self._operations))(*self._operations)
        play = library.nablad_play
        play.argtypes, play.restype = (ctypes.c_void_p, ctypes.c_uint64), None
        played = partial(play, ctypes.addressof(tape), len(tape))
        played.kept = tape, self._kept  # type: ignore[attr-defined]  # as long as it can be played
        return played

    def add(self, ufunc: np.ufunc, method: str, inputs: list[Any], out: NDArray[Any], options: dict[str, Any]) -> None:
        """Records an operation, and does it."""
        if method == "reduce" and len(inputs) == 1 and out.flags.c_contiguous:
            ufunc.reduce(inputs[0], out=out, **options)
            self._add_reduction(ufunc, inputs[0], out, options["axis"])
            return
        if method != "__call__" or options:
            raise _NotRecordableError(f"{ufunc.__name__}.{method} with {options}")
        ufunc(*inputs, out=out)
        operands = [np.asarray(each, out.dtype) if np.ndim(each) == 0 else each for each in inputs]
        if ufunc is np.matmul:
            self._add_product(operands[0], operands[1], out)
        else:
            self._add_call(ufunc, [*(np.broadcast_to(each, out.shape) for each in operands), out])

    def _add_product(self, a: NDArray[Any], b: NDArray[Any], out: NDArray[Any]) -> None:
        steps = [step for matrix in (a, b, out) for step in matrix.strides]
        self._append(np.matmul, [a, b, out], [1, *a.shape, b.shape[1]], [0, 0, 0, *steps])

    def _add_call(self, ufunc: np.ufunc, operands: list[NDArray[Any]]) -> None:
        """Records one loop over all elements, or one for each row."""
        if all(each.flags.c_contiguous or not any(each.strides) for each in operands):
            steps = [each.itemsize if any(each.strides) else 0 for each in operands]
            self._append(ufunc, operands, [operands[-1].size], steps)
        elif operands[-1].ndim == 2:
            rows, columns = operands[-1].shape
            steps, strides = ([each.strides[axis] for each in operands] for axis in (1, 0))
            self._append(ufunc, operands, [columns], steps, rows, strides)
        else:
            raise _NotRecordableError(f"{ufunc.__name__} of {operands[-1].ndim} dimensions")

    def _add_reduction(self, ufunc: np.ufunc, matrix: NDArray[Any], out: NDArray[Any], axis: int) -> None:
        """Records a reduction of a matrix: sums begin with 0, others with the first row or column."""
        if matrix.ndim != 2 or axis not in (0, 1):
            raise _NotRecordableError(f"{ufunc.__name__}.reduce of {matrix.ndim} dimensions")
        flat = out.reshape(-1)
        if ufunc is np.add:
            zeros = _Operation(arguments=(out.ctypes.data, None, None), lengths=(out.nbytes, 0, 0, 0))
            self._operations.append(zeros)
        else:
            self._add_call(np.positive, [matrix[0] if axis == 0 else matrix[:, 0], flat])
            matrix = matrix[1:] if axis == 0 else matrix[:, 1:]
        if axis == 0:
            steps, strides = [out.itemsize, matrix.strides[1], out.itemsize], [0, matrix.strides[0], 0]
            self._append(ufunc, [flat, matrix, flat], [matrix.shape[1]], steps, len(matrix), strides)
        else:
            steps, strides = [0, matrix.strides[1], 0], [out.itemsize, matrix.strides[0], out.itemsize]
            self._append(ufunc, [flat, matrix, flat], [matrix.shape[1]], steps, len(matrix), strides)

    def _append(
        self,
        ufunc: np.ufunc,
        operands: list[NDArray[Any]],
        lengths: list[int],
        steps: list[int],
        repeats: int = 1,
        strides: Sequence[int] = (),
    ) -> None:
        loop, data = _loop(ufunc, "".join(each.dtype.char for each in operands))
        addresses = [each.ctypes.data for each in operands]
        self._kept += operands
        self._operations.append(
            _Operation(loop, data, tuple(addresses), tuple(lengths), tuple(steps), repeats, tuple(strides))
        )


@cache
def _loop(ufunc: np.ufunc, types: str) -> tuple[int | None, int | None]:
    """Returns the inner loop of a ufunc for operands of these types, and its data."""
    signature = f"{types[: ufunc.nin]}->{types[ufunc.nin :]}"
    if signature not in ufunc.types or ufunc.nargs > _OPERANDS:
        raise _NotRecordableError(f"{ufunc.__name__} of {signature}")
    known = _UFunc.from_address(id(ufunc))
    if (known.arguments, known.count, known.name) != (ufunc.nargs, len(ufunc.types), ufunc.__name__.encode()):
        raise _NotRecordableError("numpy's ufuncs are not as its headers say")
    number = ufunc.types.index(signature)
    return known.loops[number], known.data[number] if known.data else None


def _plain(array: Any) -> Any:
    return array.view(np.ndarray) if isinstance(array, _StandIn) else array
