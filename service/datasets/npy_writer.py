"""Writing a .npy file block by block.

Through write(2) and not through a memory map: on a full disk the one raises `OSError`, the other kills the process.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@contextmanager
def npy_writer(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Opens a new .npy file for an array of that type and shape, in C order.

    Yields:
        A function that appends the next rows, of exactly that type.
    """
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with path.open("xb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)

        def append(block: NDArray[Any]) -> None:
            stream.write(np.ascontiguousarray(block).data)

        yield append
