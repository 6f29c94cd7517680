"""A file of numbers in rows, whatever its format."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.datasets.errors import shown


@dataclass(frozen=True)
class StagedFile:
    """A file that a client has sent.

    Attributes:
        filename: As the client names it; for messages and, by its ending, for the format. Never used as a path.
        path: Where its bytes are.
    """

    filename: str
    path: Path

    @property
    def name(self) -> str:
        """The file name as messages show it."""
        return shown(self.filename)


class Source(Protocol):
    """Numbers in rows, whose shape is known, and held against the file's length, before any of them is read."""

    @property
    def name(self) -> str:
        """The file, as messages show it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Real numbers of any kind."""

    def blocks(self, rows: int) -> Iterator[NDArray[Any]]:
        """All rows in their order, ``rows`` at a time: arrays (rows, …), the last one shorter.

        Each is valid until the next one is asked for.

        Raises:
            DatasetError: The file turns out to be damaged.
        """
