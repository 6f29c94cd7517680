"""Checkpoints of a running training: when one is due, and who waits for it."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.image import make_image
from service.parameter_server.progress.event_log import TrainingEventLog
from service.parameter_server.progress.tracker import Position
from service.parameter_server.training import Training
from service.parameter_server.transport.thread_bridge import ThreadBridge, set_exception, set_result

__all__ = ["Checkpoint", "CheckpointDesk", "CheckpointSchedule", "Waiter"]

_DEFAULT_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Checkpoint:
    """Where a training stood between two steps.

    Attributes:
        state: All but the vectors.
        image: Its file.
        events: How much had happened before.
    """

    state: ps_pb.TrainingState
    image: bytearray
    events: int


Waiter = asyncio.Future[Checkpoint | None]
"""Somebody who waits for a checkpoint; None if there will be none any more."""


class CheckpointSchedule:
    """When the next checkpoint is due: after so many epochs or seconds since the last one, or the beginning."""

    def __init__(self, spec: spec_pb.CheckpointsSpec, position: Position, now: float) -> None:
        """A training begins at a position, now, by a clock of monotonic seconds."""
        self._every_epochs = spec.every_epochs or math.inf
        self._every_seconds = spec.every_seconds if spec.HasField("every_seconds") else _DEFAULT_SECONDS
        self.taken(position, now)

    def taken(self, position: Position, now: float) -> None:
        """A checkpoint was taken."""
        self._last, self._last_time = position, now

    def is_due(self, position: Position, now: float) -> bool:
        """Whether the next one is to be taken; never before something has changed."""
        if position == self._last:
            return False
        epochs = position.epochs_ended - self._last.epochs_ended
        return epochs >= self._every_epochs or now - self._last_time >= self._every_seconds


class CheckpointDesk:
    """Hands checkpoints out to those who wait. Belongs to the thread that the training belongs to."""

    def __init__(
        self,
        schedule: CheckpointSchedule,
        description: Mapping[str, Any],
        calls: ThreadBridge,
        chronicle: TrainingEventLog,
    ) -> None:
        """Nobody waits yet.

        Args:
            schedule: When the next one is due.
            description: What checkpoints belong to.
            calls: To those who wait.
            chronicle: What has happened.
        """
        self._schedule = schedule
        self._description = description
        self._calls = calls
        self._chronicle = chronicle
        self._waiting: list[Waiter] = []
        self._closed = False

    def wait(self, waiter: Waiter, training: Training, now: float) -> None:
        """Somebody wants the next checkpoint that is due."""
        self._waiting = [other for other in self._waiting if not other.done()] + [waiter]
        self.serve(training, now)

    def serve(self, training: Training, now: float) -> None:
        """Takes a checkpoint if one is due and somebody waits for it; all who wait get it."""
        if not self._waiting:
            return
        if training.over or self._closed:
            self.close()
        elif self._schedule.is_due(training.position, now):
            waiting, self._waiting = self._waiting, []
            self._take([waiter for waiter in waiting if not waiter.done()], training, now)

    def take(self, waiter: Waiter, training: Training, now: float) -> None:
        """Somebody wants a checkpoint at once."""
        if training.over or self._closed:
            self._calls.to_loop(set_result, waiter, None)
        else:
            self._take([waiter], training, now)

    def close(self) -> None:
        """There will be no more checkpoints."""
        self._closed = True
        while self._waiting:
            self._calls.to_loop(set_result, self._waiting.pop(), None)

    def _take(self, waiters: list[Waiter], training: Training, now: float) -> None:
        """The training goes on where there is no memory for an image; it is due still."""
        if not waiters:
            return
        snapshot = training.snapshot()
        try:
            image = make_image(snapshot, self._description)
        except MemoryError as error:
            for waiter in waiters:
                self._calls.to_loop(set_exception, waiter, error)
            return
        checkpoint = Checkpoint(snapshot.state, image, len(self._chronicle))
        self._schedule.taken(training.position, now)
        for waiter in waiters:
            self._calls.to_loop(set_result, waiter, checkpoint)
