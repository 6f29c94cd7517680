"""The same step as in model.py, worker by worker: what the formulas leave out about queues shows here. Pure.

A parameter server's thread, and its network in each direction, do one thing after the other, in the order in which it
comes. What is larger than a socket goes in pieces, and a worker's next piece queues when the one before has arrived, so
that the large vectors of several workers take turns.
"""

import heapq
import math
from collections.abc import Generator
from contextlib import suppress

from benchmarks.scale.quantities import Link, Parts
from benchmarks.scale.stages import SOCKET_BYTES, Stages, Work, stages_of

__all__ = ["simulate"]


class _Queue:
    """Something that does one thing after the other."""

    def __init__(self) -> None:
        self._free = 0.0

    def use(self, now: float, seconds: float) -> float:
        """Asks for it now; when it has done so many seconds of work."""
        self._free = max(now, self._free) + seconds
        return self._free


class _Server:
    """What the workers share."""

    def __init__(self) -> None:
        self.thread, self.out, self.into = _Queue(), _Queue(), _Queue()


_Uses = list[tuple[_Queue, float]]  # at the same time: bytes are on the wire while others are still written
_Course = Generator[tuple[float, _Uses], float, None]  # stays so long and until all is done; is told the time then


def simulate(work: Work, parts: Parts, link: Link) -> float:
    """The seconds of a step where each worker and each parameter server has a CPU of its own."""
    stages = stages_of(work, parts, link)
    tail = stages.update + stages.round_trip
    return _last_check(stages, work) + tail + max(0.0, stages.gather - stages.check - tail)


def _last_check(stages: Stages, work: Work) -> float:
    """When the parameter server has checked the gradients of all workers, in seconds from the first order."""
    server, now = _Server(), 0.0
    courses = [_course(stages, work, server) for _ in range(work.workers)]
    events = [(next(course)[0], number) for number, course in enumerate(courses)]
    while events:
        now, number = heapq.heappop(events)
        with suppress(StopIteration):
            stay, uses = courses[number].send(now)
            heapq.heappush(events, (max([now + stay, *(queue.use(now, seconds) for queue, seconds in uses)]), number))
    return now


def _course(stages: Stages, work: Work, server: _Server) -> _Course:
    """What one worker goes through; all parameter servers are alike, so that one is enough."""
    own = _Queue()
    yield 0.0, []
    for share in _pieces(1.0, stages, work):
        now = yield 0.0, _through(share * stages.order, share, stages, server.out, own, server.thread)
    begun = now + stages.speak
    for done, layer_share in work.form.gradient_parts:
        now = yield max(0.0, begun + done * stages.compute - now), []
        for share in _pieces(layer_share, stages, work):
            now = yield 0.0, _through(share * stages.receive, share, stages, server.into, own, server.thread)
    yield 0.0, [(server.thread, stages.check)]


def _through(thread_s: float, share: float, stages: Stages, wire: _Queue, own_wire: _Queue, thread: _Queue) -> _Uses:
    """Such a share of a vector, through a socket."""
    return [(thread, thread_s), (wire, share * stages.wire), (own_wire, share * stages.own_wire)]


def _pieces(share: float, stages: Stages, work: Work) -> list[float]:
    """Of such a share of a vector, as shares of the vector."""
    moved = share * work.shard_bytes if stages.wire else 0.0
    number = max(1, math.ceil(moved / SOCKET_BYTES))
    return [share / number] * number
