"""Regions: shared by whom they are handed to, as far as they are meant to, and gone with the last who has them."""

import ctypes
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from workers.transport.shared_memory import PROBE_BYTES, SharedMemory, vectors_bytes

SIZE = 3 * mmap.PAGESIZE


def _create(name: str, *, others_may_write: bool) -> SharedMemory:
    return SharedMemory.create(name, SIZE, others_may_write=others_may_write)


def _handed_over(memory: SharedMemory, *, writable: bool, size: int = SIZE) -> SharedMemory:
    """As another process has it that was given the open file."""
    return SharedMemory(os.dup(memory.fileno()), size, writable=writable)


def _open_files(name: str) -> int:
    """How many files of this process are memories of this name."""
    links = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(link.readlink()))
        except FileNotFoundError:  # the one that the folder was read with
            continue
    return sum(f"memfd:nablad-{name} " in link for link in links)


def _mappings(name: str) -> list[str]:
    """The permissions of this process's mappings of memories of this name."""
    connections = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return [connection.split()[1] for connection in connections if f"memfd:nablad-{name} " in connection]


def test_what_one_writes_the_other_reads() -> None:
    """Both see the same numbers, without any copy, in either direction."""
    ours = _create("both", others_may_write=True)
    theirs = _handed_over(ours, writable=True)
    a, b = ours.vector(np.float32, 5), theirs.vector(np.float32, 5)
    a[:] = range(5)
    assert b.tolist() == [0, 1, 2, 3, 4]
    b[2] = 7
    assert a.tolist() == [0, 1, 7, 3, 4]
    assert ours.vector(np.float64, 2).dtype == np.float64


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1, 5, 16, 1000])
def test_vectors_lie_one_behind_the_other(dtype: str, size: int) -> None:
    """Each begins where a cache line does, none reaches into another one, and all of them just fit."""
    for count in (1, 2, 3):
        memory = SharedMemory.create("several", vectors_bytes(dtype, size, count), others_may_write=True)
        vectors = memory.vectors(dtype, size, count)
        assert [vector.ctypes.data % 64 for vector in vectors] == [0] * count
        for number, vector in enumerate(vectors):
            vector[:] = number
        assert [set(vector.tolist()) for vector in vectors] == [{number} for number in range(count)]
        theirs = _handed_over(memory, writable=False, size=memory.size)
        assert [set(vector.tolist()) for vector in theirs.vectors(dtype, size, count)] == [{n} for n in range(count)]


def test_a_memory_is_its_user_s_and_has_no_name() -> None:
    """Mode 0600, and no file system that it could be opened from, or left behind in."""
    memory = _create("private", others_may_write=True)
    status = os.fstat(memory.fileno())
    assert status.st_mode & 0o777 == 0o600
    assert status.st_nlink == 0
    assert not os.get_inheritable(memory.fileno())


@pytest.mark.parametrize("others_may_write", [True, False])
def test_a_memory_keeps_its_size(others_may_write: bool) -> None:
    """Who has it can neither shrink it under those who have mapped it, nor grow it: reads never fault."""
    memory = _create("sealed", others_may_write=others_may_write)
    for size in (0, SIZE - 1, SIZE + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(memory.fileno(), size)
    assert os.fstat(memory.fileno()).st_size == SIZE


def test_weights_cannot_be_written_by_those_who_read_them() -> None:
    """Not through a mapping, a reading mapping that is changed, the file, or the file opened anew."""
    memory = _create("weights", others_may_write=False)
    ours = memory.vector(np.float32, 4)
    ours[:] = 1  # its maker can
    reader = _handed_over(memory, writable=False)
    theirs = reader.vector(np.float32, 4)
    assert not theirs.flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        theirs.flags.writeable = True
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(theirs.ctypes.data), SIZE, mmap.PROT_READ | mmap.PROT_WRITE) == -1
    with pytest.raises(PermissionError):
        _handed_over(memory, writable=True)
    with pytest.raises(PermissionError):
        os.pwrite(reader.fileno(), b"x", 0)
    anew = os.open(f"/proc/self/fd/{reader.fileno()}", os.O_RDWR)
    with pytest.raises(PermissionError):
        SharedMemory(anew, SIZE, writable=True)
    ours[0] = 2
    assert theirs.tolist() == [2, 1, 1, 1]


def test_a_challenge_is_answered_through_shared_memory_alone() -> None:
    """The answer is there when the other end gave it, not before, and not in memory that only looks alike."""
    memory, other = (_create("probe", others_may_write=True) for _ in range(2))
    answer = memory.write_challenge()
    assert len(answer) == PROBE_BYTES
    assert not memory.has_answer(answer)
    other.answer_challenge()
    assert not memory.has_answer(answer)
    _handed_over(memory, writable=True).answer_challenge()
    assert memory.has_answer(answer)


def test_challenges_differ() -> None:
    """An answer cannot be known before the question."""
    memory = _create("probe", others_may_write=True)
    assert len({memory.write_challenge() for _ in range(8)}) == 8


@pytest.mark.parametrize("writable", [True, False])
def test_a_memory_that_is_smaller_than_said_is_refused(writable: bool) -> None:
    """Reading beyond its end would kill the process; its file is closed again."""
    memory = _create("small", others_may_write=True)
    with pytest.raises(ValueError, match="length"):
        _handed_over(memory, writable=writable, size=SIZE + 1)
    del memory
    assert _open_files("small") == 0


def test_more_memory_than_there_can_be_is_an_error_that_leaves_nothing() -> None:
    """What makes it can then go on without."""
    with pytest.raises(OSError, match="allocate"):
        SharedMemory.create("huge", 1 << 62, others_may_write=True)
    assert _open_files("huge") == 0


def _by_memory(memory: SharedMemory) -> SharedMemory:
    return memory


def _by_vector(memory: SharedMemory) -> np.ndarray:
    return memory.vector(np.float32, 4)


@pytest.mark.parametrize("keep", [_by_memory, _by_vector])
def test_a_memory_is_gone_with_the_last_that_keeps_it(keep: Callable[[SharedMemory], object]) -> None:
    """A vector keeps the memory, as the memory does; after both there is neither a mapping nor an open file."""
    memory = _create("kept", others_may_write=False)
    kept = keep(memory)
    del memory
    assert _mappings("kept") == ["rw-s"]
    del kept
    assert _mappings("kept") == []
    assert _open_files("kept") == 0


def test_many_regions_leak_no_open_file() -> None:
    """A parameter server makes one for each worker that ever joins."""
    for _ in range(50):
        memory = _create("many", others_may_write=True)
        vector = _handed_over(memory, writable=True).vector(np.float32, 4)
        vector[0] = 1
    assert _open_files("many") == 3  # the last memory's file and mapping, and the mapping that the vector keeps
    del memory, vector
    assert _open_files("many") == 0
