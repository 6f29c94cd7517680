"""Failpoints that are switched on while the processes run that have them.

Whether a failpoint fails is fixed by a process's environment, but an entry with a file fails only while the file is not
there. So every entry gets a file, which is there at first, and is taken away when the failure is wanted. The process
that fails creates it again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from workers.runtime.failpoints import VARIABLE

__all__ = ["HITS", "SERVICE_POINTS", "Fuse", "Fuses"]


class Fuse(NamedTuple):
    """One entry of the environment variable.

    Attributes:
        name: Of the failpoint.
        action: What happens there.
        hit: At which passing of a process; 0: whenever it passes.
    """

    name: str
    action: str = "kill"
    hit: int = 0

    def __str__(self) -> str:
        return f"{self.name}={self.action}@{self.hit or '1+'}"


# Exact hits, for what the processes of several jobs pass: those that have long passed them are not hit.
_GRADIENTS = (1, 2, 3, 7, 20, 55, 148, 260, 403, 600, 777, 950)
HITS: Mapping[str, Sequence[int]] = {
    "worker.ordered": _GRADIENTS,
    "worker.computing": _GRADIENTS,
    "worker.reported": _GRADIENTS,
    "ps.updated": _GRADIENTS,
    "ps.epoch_ended": (1, 2, 7, 13, 24, 37),
    "ps.checkpoint_taken": (1, 2, 3),
    "ps.resumed": (1,),
}
# What only the service passes.
SERVICE_POINTS = (
    "job.committing",
    "job.committed",
    "attempt.starting",
    "checkpoint.writing",
    "checkpoint.written",
    "checkpoint.synced",
    "checkpoint.renamed",
    "checkpoint.noted",
    "model.written",
    "job.ending",
)
_ALL = (
    *(Fuse(name, "kill", hit) for name, hits in HITS.items() for hit in hits),
    *(Fuse(name) for name in SERVICE_POINTS),
    Fuse("checkpoint.writing", "enospc"),
)


class Fuses:
    """Fuses of one daemon: the entries of its environment."""

    def __init__(self, folder: Path) -> None:
        """None is armed.

        Args:
            folder: For their files.
        """
        self._folder = folder
        for fuse in _ALL:
            self._file(fuse).touch()

    @property
    def environment(self) -> dict[str, str]:
        """Environment of the processes that shall have the fuses."""
        return {VARIABLE: ";".join(f"{fuse}!{self._file(fuse)}" for fuse in _ALL)}

    def arm(self, fuse: Fuse) -> None:
        """Makes the next process that comes there fail, once."""
        self._file(fuse).unlink()

    def disarm(self, fuse: Fuse) -> None:
        """Lets no further process fail there."""
        self._file(fuse).touch()

    def has_blown(self, fuse: Fuse) -> bool:
        """Returns whether a process has failed there since the fuse was armed."""
        return self._file(fuse).exists()

    def _file(self, fuse: Fuse) -> Path:
        return self._folder / str(fuse)
