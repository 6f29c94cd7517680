"""Event log: the events of an attempt in their order."""

import time
from collections.abc import Callable, Iterable
from typing import Final

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb

__all__ = ["TrainingEventLog"]

_SECOND: Final = 10**9  # in nanoseconds
# Most events of one response, so that it fits into a message.
_MOST_EVENTS: Final = 1000


class TrainingEventLog:
    """Keeps events for followers, who read them from any point on. Belongs to one thread.

    Attributes:
        ended: Whether the last event of the attempt is in the log.
    """

    def __init__(self, notify: Callable[[], None]) -> None:
        """Starts empty; `notify` is called after each event that followers must read at once."""
        self._events: list[ps_pb.TrainingEvent] = []
        self._arithmetics: list[jobs_pb.Arithmetic] = []
        self._notify = notify
        self.ended = False

    def __len__(self) -> int:
        return len(self._events)

    def append(self, event: ps_pb.TrainingEvent) -> None:
        """Appends an event of this moment. A sampled step notifies nobody: it is read with the next event."""
        is_step = event.HasField("step")
        if is_step:
            # By hand, because there are many: FromNanoseconds checks and normalises.
            event.step.time.seconds, event.step.time.nanos = divmod(time.time_ns(), _SECOND)
        self._events.append(event)
        self.ended = self.ended or bool(event.finished or event.failed or event.diverged)
        if not is_step:
            self._notify()

    def extend(self, events: Iterable[ps_pb.TrainingEvent]) -> None:
        """Appends events that happened one after the other."""
        for event in events:
            self.append(event)

    def append_arithmetic(self, arithmetic: jobs_pb.Arithmetic) -> None:
        """Appends the numeric environment of a process, once for each kind."""
        if arithmetic not in self._arithmetics:
            self._arithmetics.append(arithmetic)
            self.append(ps_pb.TrainingEvent(arithmetic=arithmetic))

    def events_after(self, seen: int) -> list[ps_pb.TrainingEvent]:
        """Returns the events after the first `seen`, or as many of them as fit into a message."""
        return self._events[seen : seen + _MOST_EVENTS]
