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
        self._events: list[ps_pb.TrainingEvent] = []
        self._arithmetics: list[jobs_pb.Arithmetic] = []
        self._news = news
        self.ended = False

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: ps_pb.TrainingEvent) -> None:
        """Something happened, now. A step of the history waits for whatever is told next."""
        is_step = event.HasField("step")
        if is_step:
            event.step.time.FromNanoseconds(time.time_ns())
        self._events.append(event)
        self.ended = self.ended or bool(event.finished or event.failed or event.diverged)
        if not is_step:
            self._news()

    def add_all(self, events: Iterable[ps_pb.TrainingEvent]) -> None:
        """They happened one after the other."""
        for event in events:
            self.add(event)

    def add_arithmetic(self, arithmetic: jobs_pb.Arithmetic) -> None:
        """Somebody computes with this; told once of each kind."""
        if arithmetic not in self._arithmetics:
            self._arithmetics.append(arithmetic)
            self.add(ps_pb.TrainingEvent(arithmetic=arithmetic))

    def after(self, seen: int) -> list[ps_pb.TrainingEvent]:
        """What happened after the first `seen` events, or as much of it as is told at a time."""
        return self._events[seen : seen + _MOST_TOLD]
