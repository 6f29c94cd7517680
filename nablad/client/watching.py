"""A watch that outlives the connection it runs over."""

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
"""An event of a job, a sample of its progress, or why it waits in the queue."""


class Patience:
    """How long to try again, and how soon.

    Attributes:
        total_s: Seconds from the loss of the connection to giving up.
    """

    def __init__(self, total_s: float) -> None:
        self.total_s = total_s
        self._called_at_s = 0.0
        self._lost_at_s: float | None = None
        self._losses = 0

    def called(self) -> None:
        """A call begins."""
        self._called_at_s = time.monotonic()

    def heard(self) -> None:
        """The service has spoken: the next loss is a new one."""
        self._lost_at_s = None
        self._losses = 0

    def lost(self) -> bool:
        """The call broke off; whether this was once too often.

        A call that lasted for longer than the patience had a connection, even when there was nothing to be said.
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
    """The events of a job, each once and in order, with samples of where it stands in between.

    After a loss of the connection the watch goes on from the event after the last one seen. A service that has not
    said a word yet is not waited for.

    Raises:
        UnavailableError: The service could not be reached, or not again within the patience.
        InternalError: The service left events out, which it never should.
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
                yield from _news(response, request)
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


def _news(response: jobs_pb2.WatchJobResponse, request: jobs_pb2.WatchJobRequest) -> Iterator[JobUpdate]:
    """What ``response`` tells that was not told before; moves ``request`` on to the event after it."""
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
