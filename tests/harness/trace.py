"""Trace of a job: its events and progress as a client sees them."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from nablad import Client
from nablad.errors import NablaError, UnavailableError
from nablad.v1 import jobs_pb2

__all__ = ["Sample", "Trace"]

_RETRY_SECONDS = 0.1


class Sample(NamedTuple):
    """Sample of a job's progress.

    Attributes:
        at_s: On the monotonic clock.
        attempt: Of the last event before.
        step: Updates of the weights.
    """

    at_s: float
    attempt: int
    step: int


@dataclass
class Trace:
    """Follows a job to its end, through any restart of the service.

    Attributes:
        samples: In the order in which they came, each with another step than the one before.
        events: All of them, in order.
        faults: What the service told wrongly: numbers of events with gaps, an error other than that it is not there.
    """

    address: str
    job_id: str
    samples: list[Sample] = field(default_factory=list)
    events: list[jobs_pb2.Event] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._news = threading.Condition()
        self._ended = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    @property
    def step(self) -> int:
        """Step of the newest sample."""
        return self.samples[-1].step if self.samples else 0

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Waits for what news bring; gives False when the job ends, or the time, before."""
        with self._news:
            self._news.wait_for(lambda: condition() or self._ended, seconds)
            return condition()

    def wait_until_ended(self, seconds: float) -> bool:
        """Returns whether the job ended within so many seconds."""
        with self._news:
            return self._news.wait_for(lambda: self._ended, seconds)

    def close(self) -> None:
        """Follows no longer."""
        self._closed.set()

    def longest_stall_s(self, from_s: float = 0.0, to_s: float = float("inf")) -> float:
        """The longest time without a step, in seconds, between two moments and while there were steps to make."""
        times = [sample.at_s for sample in self.samples if from_s <= sample.at_s <= to_s]
        return max((after - before for before, after in pairwise(times)), default=0.0)

    def _follow(self) -> None:
        with Client(self.address, patience_s=0) as client:
            while not self._closed.is_set():
                try:
                    for news in client.watch(self.job_id, len(self.events) + 1):
                        self._take(news)
                        if self._closed.is_set():
                            return
                except UnavailableError:
                    time.sleep(_RETRY_SECONDS)
                except NablaError as error:
                    self._end(f"the watch ended with {error!r}")
                    return
                else:
                    self._end()
                    return

    def _take(self, news: jobs_pb2.Event | jobs_pb2.Progress | jobs_pb2.Waiting) -> None:
        with self._news:
            if isinstance(news, jobs_pb2.Event):
                if news.number != len(self.events) + 1:
                    self.faults.append(f"event {news.number} came after event {len(self.events)}")
                self.events.append(news)
            elif isinstance(news, jobs_pb2.Progress) and news.step != self.step:
                attempt = self.events[-1].attempt if self.events else 0
                self.samples.append(Sample(time.monotonic(), attempt, news.step))
            self._news.notify_all()

    def _end(self, fault: str = "") -> None:
        with self._news:
            self.faults += [fault] if fault else []
            self._ended = True
            self._news.notify_all()
