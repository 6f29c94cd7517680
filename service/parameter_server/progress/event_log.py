"""What happened to an attempt, in its order."""

import time
from collections.abc import Callable, Iterable
from typing import Final

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb

__all__ = ["TrainingEventLog"]

# What is told at a time, so that it fits into a message.
_MOST_TOLD: Final = 1000


class TrainingEventLog:
    """Keeps what happens, to be told to whoever follows, from any point on. Belongs to one thread."""

    def __init__(self, news: Callable[[], None]) -> None:
        """`news` is called when something has happened that cannot wait until a follower looks by itself."""
        self._happenings: list[ps_pb.Happening] = []
        self._arithmetics: list[jobs_pb.Arithmetic] = []
        self._news = news
        self.ended = False

    def __len__(self) -> int:
        return len(self._happenings)

    def add(self, happening: ps_pb.Happening) -> None:
        """Something happened, now. A step of the history waits for whatever is told next."""
        is_step = happening.HasField("step")
        if is_step:
            happening.step.time.FromNanoseconds(time.time_ns())
        self._happenings.append(happening)
        self.ended = self.ended or bool(happening.finished or happening.failed or happening.diverged)
        if not is_step:
            self._news()

    def add_all(self, happenings: Iterable[ps_pb.Happening]) -> None:
        """They happened one after the other."""
        for happening in happenings:
            self.add(happening)

    def add_arithmetic(self, arithmetic: jobs_pb.Arithmetic) -> None:
        """Somebody computes with this; told once of each kind."""
        if arithmetic not in self._arithmetics:
            self._arithmetics.append(arithmetic)
            self.add(ps_pb.Happening(arithmetic=arithmetic))

    def after(self, seen: int) -> list[ps_pb.Happening]:
        """What happened after the first `seen` happenings, or as much of it as is told at a time."""
        return self._happenings[seen : seen + _MOST_TOLD]
