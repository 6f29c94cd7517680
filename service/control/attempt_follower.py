"""Attempt follower: polls the parameter server of an attempt, and publishes its events."""

import asyncio
import logging
import math
import sqlite3
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

import grpc

from nablad.learning_metrics import LEARNING_METRICS, ROW_SETS
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from service.errors import AttemptFailed, AttemptLost
from service.events.job_events import (
    HistoryExtended,
    ProgressReported,
    StepCoreChanged,
    WarningRaised,
    WorkerGone,
    WorkerJoined,
)
from service.events.publisher import EventPublisher
from service.stores.jobs import JobStore

__all__ = ["AttemptFollower"]

_log = logging.getLogger(__name__)

# A parameter server that does not answer for so long counts as lost.
_SILENCE_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 0.5
# Pause before events are written again that a full disk did not take. The training goes on meanwhile.
_REWRITE_SECONDS: Final = 2.0
# Interval of polling. Epochs that end faster than this are written in one transaction.
_POLL_SECONDS: Final = 0.1
# Telemetry is only for metrics, which are hardly scraped more often than this.
_STATISTICS_SECONDS: Final = 1.0


class AttemptFollower:
    """Follows the parameter server of one attempt.

    Attributes:
        progress: The newest progress of the training.
    """

    def __init__(
        self,
        jobs: JobStore,
        events: EventPublisher,
        job: jobs_pb.Job,
        now: Callable[[], datetime],
        epoch_ended: Callable[[ps_pb.EpochEnd], None],
    ) -> None:
        """Calls nothing yet.

        Args:
            jobs: Store of the job's receipt.
            events: Publisher of the job's events.
            job: The job, with the number of the attempt.
            now: Clock of the time of day.
            epoch_ended: Called with the end of each epoch; may raise AttemptFailed.
        """
        self.progress = jobs_pb.Progress()
        self._jobs = jobs
        self._events = events
        self._job_id = job.job_id
        self._attempt = job.attempt
        self._now = now
        self._epoch_ended = epoch_ended
        self._seen = 0
        self._written = asyncio.Event()
        self._running = False
        self._silent_since: float | None = None
        self._next_statistics = -math.inf

    async def run(self, stub: "ps_grpc.ParameterServerServiceAsyncStub", metadata: tuple[tuple[str, str], ...]) -> str:
        """Follows the training to its end, and returns why it ended, as a sentence.

        Raises:
            AttemptFailed: The training cannot go on.
            AttemptLost: The parameter server does not answer.
        """
        while True:
            try:
                request = ps_pb.FollowRequest(seen=self._seen, statistics=time.monotonic() >= self._next_statistics)
                response = await stub.Follow(request, metadata=metadata, timeout=_ANSWER_SECONDS)
                self._silent_since = None
                ending = self._publish(response)
                if ending is not None:
                    return ending
                await asyncio.sleep(_POLL_SECONDS)
            except grpc.aio.AioRpcError as error:
                self._tolerate_silence(error.details() or "it does not answer")
                await asyncio.sleep(_RETRY_SECONDS)
            except (OSError, sqlite3.Error) as error:
                _log.warning("job %s: its events cannot be written yet: %s", self._job_id, error)
                await asyncio.sleep(_REWRITE_SECONDS)

    async def wait_until_written(self, events: int) -> None:
        """Waits until the first `events` events are written."""
        while self._seen < events:
            self._written.clear()
            await self._written.wait()

    def _count_written(self, events: int) -> None:
        self._seen += events
        self._written.set()

    def _tolerate_silence(self, why: str) -> None:
        self._silent_since = self._silent_since or time.monotonic()
        if time.monotonic() - self._silent_since > _SILENCE_SECONDS:
            raise AttemptLost(f"the parameter server was lost: {why}", cause="parameter_server")

    def _publish(self, response: ps_pb.FollowResponse) -> str | None:
        """Publishes the events of a response, and returns why the training ended, if it did.

        Events that were written count as seen, and are not sent again.
        """
        self.progress = response.progress
        self._publish_progress(response)
        points: list[ps_pb.TrainingEvent] = []
        for event in response.events:
            if event.WhichOneof("what") in ("epoch_end", "step"):
                points.append(event)
                continue
            self._publish_history(points)
            points = []
            if ending := self._publish_event(event):
                return ending
            self._count_written(1)
        self._publish_history(points)
        return None

    def _publish_progress(self, response: ps_pb.FollowResponse) -> None:
        statistics = response.statistics if response.HasField("statistics") else None
        self._events.publish(ProgressReported(self._job_id, response.progress, statistics))
        if statistics is not None:
            self._next_statistics = time.monotonic() + _STATISTICS_SECONDS

    def _publish_event(self, event: ps_pb.TrainingEvent) -> str:
        """Publishes one event, and returns why the training ended; empty if it did not."""
        match event.WhichOneof("what"):
            case "worker_joined":
                self._require_running("the first worker has joined")
                self._events.publish(WorkerJoined(self._job_id, event.worker_joined))
            case "worker_lost":
                self._events.publish(WorkerGone(self._job_id, event.worker_lost))
            case "worker_left":
                self._events.publish(WorkerGone(self._job_id, event.worker_left))
            case "arithmetic" | "first_weights_sha256" | "step_core":
                self._update_receipt(event)
            case "core_changed":
                change = event.core_changed
                self._events.publish(StepCoreChanged(self._job_id, change.sentence, change.step_core))
            case "warning":
                self._events.publish(WarningRaised(self._job_id, event.warning))
            case "failed":
                raise AttemptFailed(event.failed)
            case "diverged":
                raise AttemptFailed(event.diverged, kind=jobs_pb.FAILURE_KIND_DETERMINISTIC)
            case "finished":
                # An attempt may start from a checkpoint of the end, before any worker has joined.
                self._require_running("there is nothing left to do")
                return event.finished
        return ""

    def _publish_history(self, events: Iterable[ps_pb.TrainingEvent]) -> None:
        """Publishes epochs and steps in one transaction, because each one waits for the disk."""
        ends = [event.epoch_end for event in events if event.HasField("epoch_end")]
        steps = [event.step for event in events if event.HasField("step")]
        if not ends and not steps:
            return
        for step in steps:
            step.attempt = self._attempt
        epochs = [(end.progress, self._point(end), _sentence(end.progress)) for end in ends]
        self._events.publish(HistoryExtended(self._job_id, epochs, steps))
        self._count_written(len(epochs) + len(steps))
        for end in ends:
            self._epoch_ended(end)

    def _point(self, end: ps_pb.EpochEnd) -> jobs_pb.HistoryPoint:
        """Returns the end of an epoch as a point of the job's history."""
        names = jobs_pb.HistoryPoint.DESCRIPTOR.fields_by_name
        shared = {field.name: value for field, value in end.progress.ListFields() if field.name in names}
        point = jobs_pb.HistoryPoint(attempt=self._attempt, weights_sha256=end.weights_sha256, **shared)
        point.time.FromDatetime(self._now())
        return point

    def _update_receipt(self, event: ps_pb.TrainingEvent) -> None:
        receipt = self._jobs.receipt(self._job_id) or jobs_pb.Receipt(job_id=self._job_id)
        if event.first_weights_sha256:
            receipt.first_weights_sha256 = event.first_weights_sha256
        elif event.step_core:
            receipt.step_cores[:] = sorted({*receipt.step_cores, event.step_core})
        elif event.arithmetic not in receipt.arithmetics:
            receipt.arithmetics.append(event.arithmetic)
        self._jobs.save_receipt(receipt)

    def _require_running(self, reason: str) -> None:
        if not self._running:
            self._events.move_job(self._job_id, jobs_pb.JOB_STATE_RUNNING, reason)
            self._running = True


def _sentence(progress: jobs_pb.Progress) -> str:
    metrics = [
        f"{rows} {metric.name} {metric.text(value, digits=6)}"
        for rows in ROW_SETS
        for metric in LEARNING_METRICS
        if (value := metric.value(getattr(progress, rows))) is not None
    ]
    return f"epoch {progress.epoch} of {progress.epochs}: {', '.join(metrics)}"
