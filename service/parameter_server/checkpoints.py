"""Checkpoints of a running training: when one is due, and the requests that wait for it."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.image import make_image
from service.parameter_server.coordinator import Coordinator
from service.parameter_server.progress.event_log import TrainingEventLog
from service.parameter_server.progress.tracker import Position
from service.parameter_server.transport.thread_bridge import ThreadBridge, set_exception, set_result

__all__ = ["CheckpointRequest", "CheckpointRequests", "CheckpointSchedule", "TakenCheckpoint"]

_DEFAULT_SECONDS: Final = 30.0


@dataclass(frozen=True)
class TakenCheckpoint:
    """Checkpoint of a training between two steps.

    Attributes:
        state: The state without the vectors.
        image: Contents of the checkpoint's file.
        events: Number of events that happened before.
    """

    state: ps_pb.TrainingState
    image: bytearray
    events: int


CheckpointRequest = asyncio.Future[TakenCheckpoint | None]
"""Request for a checkpoint; its result is None if there will be none any more."""


class CheckpointSchedule:
    """Schedule of checkpoints: one is due some epochs or seconds after the last one, or after the beginning."""

    def __init__(self, spec: spec_pb.CheckpointsSpec, position: Position, now: float) -> None:
        """Starts at a position; `now` is in monotonic seconds."""
        self._every_epochs = spec.every_epochs or math.inf
        self._every_seconds = spec.every_seconds if spec.HasField("every_seconds") else _DEFAULT_SECONDS
        self.record_checkpoint(position, now)

    def record_checkpoint(self, position: Position, now: float) -> None:
        """Records that a checkpoint was taken."""
        self._last, self._last_time = position, now

    def is_due(self, position: Position, now: float) -> bool:
        """Returns whether the next one is due; it never is before something has changed."""
        if position == self._last:
            return False
        epochs = position.epochs_ended - self._last.epochs_ended
        return epochs >= self._every_epochs or now - self._last_time >= self._every_seconds


class CheckpointRequests:
    """Requests that wait for a checkpoint. Belongs to the thread of the training."""

    def __init__(
        self,
        schedule: CheckpointSchedule,
        description: Mapping[str, Any],
        bridge: ThreadBridge,
        event_log: TrainingEventLog,
    ) -> None:
        """Starts without requests.

        Args:
            schedule: Says when the next checkpoint is due.
            description: Description of the job, for the files.
            bridge: Bridge to the event loop, where the requests come from.
            event_log: Events of the attempt.
        """
        self._schedule = schedule
        self._description = description
        self._bridge = bridge
        self._event_log = event_log
        self._waiting: list[CheckpointRequest] = []
        self._closed = False

    def request_next(self, request: CheckpointRequest, coordinator: Coordinator, now: float) -> None:
        """Requests the next checkpoint that is due."""
        self._waiting = [other for other in self._waiting if not other.done()] + [request]
        self.take_if_due(coordinator, now)

    def request_now(self, request: CheckpointRequest, coordinator: Coordinator, now: float) -> None:
        """Requests a checkpoint at once."""
        if coordinator.over or self._closed:
            self._bridge.call_on_loop(set_result, request, None)
        else:
            self._take([request], coordinator, now)

    def take_if_due(self, coordinator: Coordinator, now: float) -> None:
        """Takes a checkpoint for all requests that wait, if there are any and one is due."""
        if not self._waiting:
            return
        if coordinator.over or self._closed:
            self.close()
        elif self._schedule.is_due(coordinator.position, now):
            waiting, self._waiting = self._waiting, []
            self._take([request for request in waiting if not request.done()], coordinator, now)

    def close(self) -> None:
        """Answers all requests that there will be no more checkpoints."""
        self._closed = True
        while self._waiting:
            self._bridge.call_on_loop(set_result, self._waiting.pop(), None)

    def _take(self, requests: list[CheckpointRequest], coordinator: Coordinator, now: float) -> None:
        """Takes a checkpoint; where there is no memory for its image, the training goes on and it stays due."""
        if not requests:
            return
        snapshot = coordinator.snapshot()
        try:
            image = make_image(snapshot, self._description)
        except MemoryError as error:
            for request in requests:
                self._bridge.call_on_loop(set_exception, request, error)
            return
        checkpoint = TakenCheckpoint(snapshot.state, image, len(self._event_log))
        self._schedule.record_checkpoint(coordinator.position, now)
        for request in requests:
            self._bridge.call_on_loop(set_result, request, checkpoint)
