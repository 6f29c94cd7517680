"""Watch: a stream of a job's events that survives the loss of its connection."""

import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

import grpc

from nablad.back_off import back_off_seconds
from nablad.client.translation import translate
from nablad.errors import InternalError, UnavailableError
from nablad.v1 import jobs_pb2

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0

JobUpdate: TypeAlias = jobs_pb2.Event | jobs_pb2.Progress | jobs_pb2.Waiting
"""An event of a job, a sample of its progress, or the reason why it waits in the queue."""


class Patience:
    """Limit and back-off of attempts to reconnect.

    Attributes:
        total_s: Time from the loss of the connection to giving up, in seconds.
    """

    def __init__(self, total_s: float) -> None:
        self.total_s = total_s
        self._called_at_s = 0.0
        self._lost_at_s: float | None = None
        self._losses = 0

    def called(self) -> None:
        """Records that a call begins."""
        self._called_at_s = time.monotonic()

    def heard(self) -> None:
        """Records a message of the service: the next loss is a new one."""
        self._lost_at_s = None
        self._losses = 0

    def lost(self) -> bool:
        """Records that the call broke off; returns true if the limit is reached.

        A call that lasted longer than the limit had a connection, even if there were no messages.
        """
        now_s = time.monotonic()
        if self._lost_at_s is None or now_s - self._called_at_s > self.total_s:
            self._lost_at_s = now_s
        return now_s - self._lost_at_s >= self.total_s

    def pause(self) -> None:
        """Waits, each time twice as long as before, up to 5 s."""
        self._losses += 1
        time.sleep(back_off_seconds(self._losses, _FIRST_PAUSE_S, _LONGEST_PAUSE_S))


def watch(
    call: "grpc.UnaryStreamMultiCallable[jobs_pb2.WatchJobRequest, jobs_pb2.WatchJobResponse]",
    request: jobs_pb2.WatchJobRequest,
    address: str,
    patience: Patience,
    on_lost: Callable[[UnavailableError], None],
) -> Iterator[JobUpdate]:
    """Streams a job's events, each once and in order, with samples of its progress in between.

    After the connection is lost, the watch goes on from the event after the last one seen. Before the first message
    of the service, it does not try again.

    Raises:
        UnavailableError: The service could not be reached, or not again within the limit.
        InternalError: The service left events out.
        NablaError: The service refused.
    """
    heard = False
    while True:
        patience.called()
        stream = call(request)
        try:
            for response in stream:
                heard = True
                patience.heard()
                yield from _unseen(response, request)
        except grpc.RpcError as error:
            problem = translate(error, address)
            if not isinstance(problem, UnavailableError) or not heard or patience.lost():
                raise problem from error
        else:
            return
        finally:
            stream.cancel()
        on_lost(problem)
        patience.pause()


def _unseen(response: jobs_pb2.WatchJobResponse, request: jobs_pb2.WatchJobRequest) -> Iterator[JobUpdate]:
    """Yields the updates in ``response`` that are new; moves ``request`` on to the next event."""
    for event in response.events:
        coming = max(request.from_event, 1)
        if event.number > coming:
            raise InternalError(
                f"The service should go on with event {coming} of job {request.job_id}, but sent event {event.number}: "
                "what happened in between is lost. Its log may say more."
            )
        if event.number == coming:
            request.from_event = coming + 1
            yield event
    if response.HasField("progress"):
        yield response.progress
    if response.HasField("waiting"):
        yield response.waiting
